"""`stillhouse models`: lists what the gateway offers, and tells who would answer for a model."""

from typing import Annotated

import typer
from rich.table import Table

from schemas.base import OpenAIModel
from schemas.explain import Explanation
from stillhouse.client import GatewayClient
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings


class ModelEntry(OpenAIModel):
    """One model, by the id that requests name it with."""

    id: str
    created: int | None = None
    owned_by: str = ""


class ModelList(OpenAIModel):
    """The answer to `GET /v1/models`."""

    data: tuple[ModelEntry, ...]


EXAMPLES = """\
Examples:

  stillhouse models

  stillhouse models --json

  stillhouse models explain best                 who would be asked for the alias `best`, and why
"""

app = typer.Typer(
    help="List the models, or tell who would answer for one.", invoke_without_command=True, epilog=EXAMPLES
)


@app.callback()
def models(context: typer.Context, *, json: JsonOption = False) -> None:
    """List the chat and embedding models of all providers."""
    if context.invoked_subcommand is not None:
        return
    with GatewayClient(load_settings()) as gateway:
        found = gateway.get("/v1/models", ModelList).data
    if json:
        print_json([entry.model_dump(exclude_none=True) for entry in found])
        return
    table = Table("model", "owned by")
    for entry in found:
        table.add_row(entry.id, entry.owned_by)
    console().print(table if found else "The gateway offers no models.")


@app.command(epilog="Example: stillhouse models explain best")
def explain(
    name: Annotated[str, typer.Argument(help="An alias, or a model such as `ollama/smollm2:135m`.")],
    *,
    json: JsonOption = False,
) -> None:
    """Tell which candidates would be asked for a model now, in which order, and why. None is called."""
    body = {"model": name, "messages": [{"role": "user", "content": ""}]}
    with GatewayClient(load_settings()) as gateway:
        told = gateway.post("/v1/chat/explain", Explanation, body)
    if json:
        print_json(told.model_dump(mode="json"))
        return
    table = Table("", "model", "circuit", "under way", "answers in", "why")
    for one in told.candidates:
        table.add_row(
            "-" if one.place is None else str(one.place),
            one.model,
            one.circuit,
            f"{one.in_flight}/{one.concurrency_max or '∞'}",
            "?" if one.answers_in_ms is None else f"{one.answers_in_ms:.0f} ms",
            one.reason,
        )
    console().print(table)
    if told.budget_left_usd is not None:
        console().print(f"This key has {told.budget_left_usd:.4f} US dollars left today.")
