"""`stillhouse models`: lists what the gateway offers."""

from rich.table import Table

from schemas.base import OpenAIModel
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


def models(*, json: JsonOption = False) -> None:
    """List the chat and embedding models of all providers."""
    with GatewayClient(load_settings()) as gateway:
        found = gateway.get("/v1/models", ModelList).data
    if json:
        print_json([entry.model_dump(exclude_none=True) for entry in found])
        return
    table = Table("model", "owned by")
    for entry in found:
        table.add_row(entry.id, entry.owned_by)
    console().print(table if found else "The gateway offers no models.")
