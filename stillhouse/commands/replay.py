"""`stillhouse replay`: recorded tasks done again by another arm, and compared with what was before."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from stillhouse.client import GatewayClient
from stillhouse.commands.comparison import GateOption, HtmlOption, IndependentOption, PassOption, compared
from stillhouse.commands.jobs import end, finish
from stillhouse.output import JsonOption
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse replay --category accepted --limit 100 --model ollama/smollm2:135m

  stillhouse replay --role welder --model ollama/smollm2:135m --escalate openai/large --context 3

  stillhouse replay --model ollama/smollm2:135m --limit 200 --against recorded --html report.html

  stillhouse replay --model ollama/smollm2:135m --budget-calls 500 --budget-usd 2 --name tuesday

  stillhouse replay --model ollama/smollm2:135m --mode refresh --cassette ci       record the answers

  stillhouse replay --model ollama/smollm2:135m --mode cassette --cassette ci --against monday \\
      --gate "not worse at 95 %"

The same command goes on where it was stopped. Exit status: 0 done, 1 it failed or the gate does not hold,
2 usage.
"""
RECORDED: Final = "recorded"

SELECTION: Final = "Which tasks"
ARM: Final = "How they are done"
COURSE: Final = "How far and how fast"
AFTERWARDS: Final = "Afterwards"


def _option(help_text: str, panel: str, *names: str, **extra: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, show_default=False, **extra)


def replay(
    model: Annotated[
        str | None, _option("The model that does them; the cheap one, where there are several.", ARM)
    ] = None,
    escalate: Annotated[
        list[str] | None,
        _option("A stronger model for what the one before does not get right. May repeat.", ARM),
    ] = None,
    *,
    recorded: Annotated[
        bool, _option("Ask no model: have the recorded answers validated anew.", ARM, "--recorded")
    ] = False,
    attempts_max: Annotated[int | None, _option("Model calls for one task; 3 unless given.", ARM)] = None,
    temperature: Annotated[float | None, _option("The models' own unless given.", ARM)] = None,
    seed: Annotated[int | None, _option("For models that take one; repeats count on from it.", ARM)] = None,
    context: Annotated[
        int | None,
        _option("So many texts of earlier work go with a task, none of its own group.", ARM, metavar="K"),
    ] = None,
    collection: Annotated[
        str | None, _option("Where earlier work is indexed; distilled unless given.", ARM)
    ] = None,
    category: Annotated[
        str | None,
        _option("What came of the task: accepted, partially_accepted, rejected, …", SELECTION),
    ] = None,
    role: Annotated[str | None, _option("The job role that the task is about.", SELECTION)] = None,
    kind: Annotated[str | None, _option("What was made: fill, email, sms, json_schema.", SELECTION)] = None,
    since: Annotated[str | None, _option("From then on, such as 2026-11-02T06:00:00Z.", SELECTION)] = None,
    until: Annotated[str | None, _option("Before then.", SELECTION)] = None,
    dataset: Annotated[str | None, _option("Behind the rows of an exported dataset.", SELECTION)] = None,
    split: Annotated[str | None, _option("Of that dataset: train, validation, holdout.", SELECTION)] = None,
    evidence_id: Annotated[list[str] | None, _option("This one. May repeat.", SELECTION)] = None,
    like: Annotated[str | None, _option("Those of another replay.", SELECTION, metavar="REPLAY")] = None,
    limit: Annotated[int | None, _option("A sample of so many, the same each time.", SELECTION)] = None,
    mode: Annotated[
        str | None,
        _option(
            "live asks the models, refresh also records what they say, cassette takes that and calls nobody.",
            COURSE,
        ),
    ] = None,
    cassette: Annotated[str | None, _option("Which cassette; default unless given.", COURSE)] = None,
    repeats: Annotated[int | None, _option("Do every task so often.", COURSE)] = None,
    concurrency: Annotated[int | None, _option("Tasks at a time; 4 unless given.", COURSE)] = None,
    budget_calls: Annotated[int | None, _option("Model calls in all.", COURSE)] = None,
    budget_tokens: Annotated[int | None, _option("Tokens in all, nearly.", COURSE)] = None,
    budget_usd: Annotated[float | None, _option("Money in all, nearly; models need prices.", COURSE)] = None,
    name: Annotated[
        str | None, _option("What to call the replay; made of the options unless given.", COURSE)
    ] = None,
    fresh: Annotated[
        bool, _option("Throw away what an earlier run left unfinished.", COURSE, "--fresh")
    ] = False,
    against: Annotated[
        str | None,
        _option(
            "Compare with another replay; `recorded` is what was answered at the time.",
            AFTERWARDS,
            metavar="REPLAY",
        ),
    ] = None,
    gate: GateOption = None,
    pass_: PassOption = "own",  # noqa: S107 - nobody's password
    independent: IndependentOption = "group",
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Do recorded tasks again on another model, and say whether that is better or worse."""
    calls = {"mode": mode, "cassette": cassette, "concurrency": concurrency}
    asked = {
        "models": [model, *(escalate or [])] if model is not None else None,
        "recorded": recorded or None,
        "attempts_max": attempts_max,
        "temperature": temperature,
        "seed": seed,
        "contexts": context,
        "collection": collection,
        "category": category,
        "role": role,
        "kind": kind,
        "since": since,
        "until": until,
        "dataset": dataset,
        "split": split,
        "evidence_ids": evidence_id,
        "like": like,
        "limit": limit,
        **calls,
        "repeats": repeats,
        "budget_calls": budget_calls,
        "budget_tokens": budget_tokens,
        "budget_usd": budget_usd,
        "name": name,
        "fresh": fresh or None,
    }
    if escalate and model is None:
        raise typer.BadParameter("there is no `--model` to begin with", param_hint="--escalate")
    baseline = against or (RECORDED if gate is not None or html is not None else None)
    with GatewayClient(load_settings()) as gateway:
        replay_id = _finished(gateway, asked, json=json, shown=baseline is None or not json)
        if baseline is None:
            return
        if baseline == RECORDED:
            judged = {"recorded": True, "like": replay_id, "name": f"{replay_id}.{RECORDED}", **calls}
            _finished(gateway, judged, json=json, shown=False)
        question = {
            "baseline": baseline,
            "current": replay_id,
            "gate": gate,
            "counting": pass_,
            "independent": independent,
        }
        compared(gateway, question, html=html, json=json)


def _finished(gateway: GatewayClient, asked: Mapping[str, Any], *, json: bool, shown: bool) -> str:
    """Run a replay to its end; its id. Says how it ended if that is to be shown, or was a failure."""
    job = finish(gateway, {"stage": "replay", **asked})
    if shown or job.replay_id is None:
        end(job, json=json)
    assert job.replay_id is not None  # otherwise it has failed, and that is the end
    return job.replay_id
