"""`stillhouse runs`: one run, from the request to the rows that it became."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from schemas.distill import EpisodeRun, ExportedRow, ReplayedTask, RunLife, RunView
from schemas.runs import Feedback, ModelRef, RetrievedText, Run, Usage
from schemas.verdicts import Verdict
from stillhouse.client import GatewayClient
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse runs show 0198c0de-7a11-7000-8000-000000000001

  stillhouse runs show JO-1042-1 --full

  stillhouse runs show JO-1042-1 --json | jq .life.rows
"""
SHORT_CHARS: Final = 500
INDENT: Final = (0, 0, 0, 2)

app = typer.Typer(no_args_is_help=True, help="Look at runs.", epilog=EXAMPLES)


@app.callback()
def runs() -> None:
    """Look at runs."""


@app.command(epilog=EXAMPLES)
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Which run.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long texts.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a run's whole life: request, context, attempts, verdict, feedback, evidence, category, exported
    rows and replays.
    """
    with GatewayClient(load_settings()) as gateway:
        view = gateway.get(f"/v1/runs/{quote(run_id, safe='')}?life=true", RunView)
    if json:
        print_json(view.model_dump(mode="json"))
        return
    _Page(console(), SHORT_CHARS if not full else None).tell(view)


class _Page:
    """Writes sections one below the other. Texts are other people's: nothing in them moves the cursor."""

    def __init__(self, out: Console, chars_max: int | None) -> None:
        self._out = out
        self._chars_max = chars_max

    def tell(self, view: RunView) -> None:
        self._head(view.run)
        self._section("request", self._messages(view.run.request.messages))
        self._section("context", (self._shown(text) for text in view.run.retrieved_context))
        self._section("attempts", _attempts(view.run))
        self._section("answer", self._answer(view.run))
        self._section("verdict", self._verdicts(view))
        self._section("feedback", map(self._feedback, view.feedback))
        if view.life is not None:
            self._evidence(view, view.life)

    def _head(self, run: Run) -> None:
        self._out.print(Text(f"run {run.run_id}", style="bold"))
        task = f"{run.task.kind} {run.task.key or ''}".strip() if run.task else None
        facts = [
            run.ts.isoformat(),
            _model(run.model),
            _named("task", task),
            _named("episode", run.episode_id),
            _named("by", run.principal),
            _named("configuration", run.config_hash),
        ]
        self._out.print(Padding(Text(_plain(" · ".join(fact for fact in facts if fact))), INDENT))

    def _evidence(self, view: RunView, life: RunLife) -> None:
        self._section("evidence", self._piece(view, life))
        self._section("category", _category(view, life))
        if len(life.episode) > 1:
            self._section("episode", (_in_episode(one, life.episode) for one in life.episode))
        self._section("exported rows", map(_row, life.rows))
        self._section("replays", map(_replay, life.replays))
        if not life.complete:
            self._out.print("There are more datasets and replays than were searched; the newest were.")

    def _section(self, title: str, lines: Iterable[str]) -> None:
        self._out.print(Text(title, style="bold"))
        told = False
        for line in lines:
            self._out.print(Padding(Text(_plain(line)), INDENT))
            told = True
        if not told:
            self._out.print(Padding(Text("none", style="dim"), INDENT))

    # --- what happened ------------------------------------------------------------------------

    def _messages(self, messages: Iterable[dict[str, Any]]) -> Iterator[str]:
        for message in messages:
            yield f"{message.get('role')}: {self._said(message)}"

    def _said(self, message: dict[str, Any]) -> str:
        content = message.get("content")
        if isinstance(content, list):
            content = "\n".join(str(part.get("text", part)) for part in content if isinstance(part, dict))
        calls = message.get("tool_calls")
        parts = (content, orjson.dumps(calls).decode() if calls else None)
        return self._short("\n".join(str(part) for part in parts if part))

    def _shown(self, text: RetrievedText) -> str:
        facts = [f"{text.collection}/{text.id}", text.role, _named("score", text.score)]
        return f"{' · '.join(fact for fact in facts if fact)}\n{self._short(text.text)}"

    def _answer(self, run: Run) -> Iterator[str]:
        if run.output is None:
            return
        yield self._said(run.output.model_dump())
        facts = [_named("finished by", run.output.finish_reason), *_usage(run.usage, run.latency_ms)]
        if any(facts):
            yield " · ".join(fact for fact in facts if fact)

    def _verdicts(self, view: RunView) -> Iterator[str]:
        """The one that came with the run, and those that came later."""
        for verdict in (view.run.verdict, *(record.verdict for record in view.verdicts)):
            if verdict is not None:
                yield from _verdict(verdict)

    def _feedback(self, one: Feedback) -> str:
        name = f" {one.name}" if one.name else ""
        return self._short(f"{one.ts.isoformat()} · {one.kind}{name} by {one.by}: {one.value}")

    # --- what became of it --------------------------------------------------------------------

    def _piece(self, view: RunView, life: RunLife) -> Iterator[str]:
        yield view.evidence_id
        if life.evidence is None:
            yield "not materialized yet"
            return
        source = life.evidence.source
        yield f"{source.segment}, byte {source.offset}, {source.length} bytes, sha256 {source.line_sha256}"
        for name, other in (("repairs", life.evidence.repair_of), ("repaired by", life.evidence.repaired_by)):
            if other is not None:
                yield f"{name} {other}"
        for review in life.evidence.review:
            yield self._short(f"{review.decision} by {review.by}: {review.note or ''}".rstrip(": "))

    # --- texts --------------------------------------------------------------------------------

    def _short(self, text: str) -> str:
        if self._chars_max is not None and len(text) > self._chars_max:
            text = f"{text[: self._chars_max]}… ({len(text)} characters; --full shows all)"
        return text


def _plain(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _verdict(verdict: Verdict) -> Iterator[str]:
    by = verdict.validator
    roster = f" · roster of {verdict.roster.as_of}" if verdict.roster else ""
    yield f"{verdict.verdict} · {by.name} {by.version}, policy {by.policy_version}{roster}"
    for finding in verdict.findings:
        yield f"  {finding.severity} {finding.code} at {finding.path or '/'}: {finding.message}"


def _category(view: RunView, life: RunLife) -> Iterator[str]:
    if view.category is None:
        yield "not scored yet"
        return
    reasons = ", ".join(life.scored.reasons) if life.scored else ""
    yield f"{view.category}{f' ({reasons})' if reasons else ''}"


def _attempts(run: Run) -> Iterator[str]:
    for one in run.attempts:
        code = f" ({one.code})" if one.code else ""
        yield f"{one.status}{code} · {one.provider}/{one.model} · {one.latency_ms:.0f} ms"


def _usage(usage: Usage, latency_ms: float | None) -> list[str | None]:
    tokens = None
    if usage.prompt_tokens is not None or usage.completion_tokens is not None:
        tokens = f"{_or_unknown(usage.prompt_tokens)} + {_or_unknown(usage.completion_tokens)} tokens"
    return [
        tokens,
        f"{usage.cost_usd:.6f} US dollars" if usage.cost_usd is not None else None,
        f"{latency_ms:.0f} ms" if latency_ms is not None else None,
    ]


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else str(count)


def _named(name: str, value: object | None) -> str | None:
    return f"{name} {value}" if value is not None else None


def _model(model: ModelRef) -> str:
    return f"{model.provider}/{model.name}"


def _in_episode(one: EpisodeRun, episode: list[EpisodeRun]) -> str:
    run_ids = {other.evidence_id: other.run_id for other in episode}
    repaired = f" · repairs {run_ids.get(one.repair_of, one.repair_of)}" if one.repair_of else ""
    return (
        f"{one.run_id} · {_model(one.model)} · verdict {one.verdict or 'none'}"
        f" · {one.category or 'not scored'}{repaired}"
    )


def _row(row: ExportedRow) -> str:
    side = ", as the rejected side" if row.part == "rejected" else ""
    return f"datasets/{row.dataset_id}/{row.file}, line {row.line}{side}"


def _replay(one: ReplayedTask) -> str:
    return (
        f"{one.replay_id} · {one.arm} ({one.mode}, repeat {one.repeat}): {one.outcome}"
        f" · runs {', '.join(one.run_ids)}"
    )
