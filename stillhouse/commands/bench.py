"""`stillhouse bench`: how many requests the running platform answers, and how fast."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import orjson
import typer
from rich.table import Table

from stillhouse.commands.progress import progress
from stillhouse.load import Load, Measured, offer
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import CliSettings, load_settings

EXAMPLES = """\
Examples:

  stillhouse bench                                         embeddings and verdicts, five seconds each

  stillhouse bench embeddings chat --connections 32 --seconds 20

  stillhouse bench search --collection notes --json

What is asked repeats, so that caches are warm: it is the platform that is measured, not a model. Chats are as
slow as their model. Run it on another machine where there is one: here it takes processor time from what it
measures. Vectors by recall and settings: `stillhouse vector bench`.
"""

TEXTS: Final = 100
SHARES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
CHECK: Final = {
    "kind": "json_schema",
    "artifact": {"worker_id": "w-1", "shifts": [1, 2, 3]},
    "context": {"schema": {"type": "object", "required": ["worker_id"]}},
}


class Target(StrEnum):
    EMBEDDINGS = "embeddings"
    VALIDATE = "validate"
    CHAT = "chat"
    SEARCH = "search"


DEFAULT_TARGETS: Final = (Target.EMBEDDINGS, Target.VALIDATE)


def bench(
    targets: Annotated[
        list[Target] | None, typer.Argument(help="What to ask for, one after the other.")
    ] = None,
    *,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Connections at once.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for each.")] = 5.0,
    embedding_model: Annotated[str, typer.Option(help="Model for embeddings.")] = "all-minilm",
    chat_model: Annotated[str, typer.Option(help="Model for chats.")] = "smollm2:135m",
    collection: Annotated[str | None, typer.Option(help="Collection to search, by text.")] = None,
    role: Annotated[str | None, typer.Option(help="Job role to search for, where it is gated.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure the running platform through its gateway. Exits with 1 when a request failed."""
    chosen = targets or list(DEFAULT_TARGETS)
    if Target.SEARCH in chosen and collection is None:
        raise typer.BadParameter("say which with --collection", param_hint="search")
    asked = {
        Target.EMBEDDINGS: ("/v1/embeddings", _embeddings(embedding_model)),
        Target.VALIDATE: ("/v1/validate", [CHECK]),
        Target.CHAT: ("/v1/chat/completions", [_chat(chat_model)]),
        Target.SEARCH: (f"/v1/collections/{collection}/search", _searches(role)),
    }
    settings = load_settings()
    measured = {}
    for target in chosen:
        path, bodies = asked[target]
        load = Load(path, [orjson.dumps(body) for body in bodies], connections, seconds)
        measured[target.value] = _offered(settings, target, load)
    figures = {name: _figures(one) for name, one in measured.items()}
    if json:
        print_json(figures)
    else:
        _show(figures)
    if any(one.failures for one in measured.values()):
        raise typer.Exit(1)


def _offered(settings: CliSettings, target: Target, load: Load) -> Measured:
    key = settings.api_key
    headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
    with progress(console(stderr=True), target.value) as report:
        return asyncio.run(
            offer(
                settings.gateway_url,
                headers,
                load,
                lambda passed: report(target.value, min(1.0, passed / load.seconds)),
            )
        )


def _embeddings(model: str) -> list[dict[str, Any]]:
    return [{"model": model, "input": f"a worker for shift {number}"} for number in range(TEXTS)]


def _chat(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Is the shift filled? Answer in a word."}],
        "max_tokens": 8,
        "seed": 1,
    }


def _searches(role: str | None) -> list[dict[str, Any]]:
    named = {"role": role} if role is not None else {}
    return [{"text": f"a worker for shift {number}", "k": 10, **named} for number in range(TEXTS)]


def _figures(measured: Measured) -> dict[str, Any]:
    quantiles = {name: measured.quantile_ms(share) for name, share in SHARES.items()}
    return {
        "requests": len(measured.latencies_s) + measured.failures.total(),
        "seconds": round(measured.seconds, 3),
        "requests_per_s": round(measured.rate, 1),
        **{name: None if value is None else round(value, 3) for name, value in quantiles.items()},
        "failures": dict(measured.failures),
    }


def _show(figures: dict[str, dict[str, Any]]) -> None:
    table = Table("", "requests/s", "p50 ms", "p95 ms", "p99 ms", "failures")
    for name, one in figures.items():
        table.add_row(name, f"{one['requests_per_s']:,.0f}", *_cells(one), _failures(one["failures"]))
    console().print(table)


def _cells(one: dict[str, Any]) -> Sequence[str]:
    return ["-" if one[name] is None else f"{one[name]:.1f}" for name in SHARES]


def _failures(failures: dict[str, int]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in failures.items()) or "none"
