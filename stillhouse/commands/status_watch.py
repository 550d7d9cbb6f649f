"""`stillhouse status --watch`: the platform as the gateway sees it, again and again."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.status import PlatformStatus, ReplicaStatus
from services.errors import Forbidden, InvalidRequest, PlatformError, Unauthenticated
from stillhouse.client import GatewayClient
from stillhouse.output import console
from stillhouse.settings import CliSettings
from stillhouse.tables import Column, fitted

PATH = "/v1/status"

STYLES = {"ready": "green", "degraded": "yellow", "unavailable": "red", "silent": "red"}
LEFT = ("replica", "state")
COLUMNS = ("replica", "state", "req/s", "5xx/s", "p50", "p99", "in flight", "waiting", "memory", "more")
FIRST_NEEDED = ("replica", "state", "req/s", "p99", "5xx/s", "waiting", "in flight", "p50", "memory")
FIGURES = [Column(name, right=name not in LEFT) for name in COLUMNS[:-1]]
MORE_CHARS_MIN = 150
"""On a narrower terminal the last column stands below the table."""

FINAL = (Unauthenticated, Forbidden, InvalidRequest)
"""Failures that do not pass by waiting."""


def watch(settings: CliSettings, *, interval_s: float, json: bool, looks: int | None) -> None:
    """Show the status every `interval_s` seconds, `looks` times or until interrupted.

    A gateway that does not answer is told of, and asked again.
    """
    with GatewayClient(settings) as client, contextlib.suppress(KeyboardInterrupt):
        views = _views(client, interval_s, looks)
        if json:
            _stream(views)
            return
        out = console()
        if out.is_terminal:
            _live(views, out)
        else:
            _lines(views, out)


def _views(
    client: GatewayClient, interval_s: float, looks: int | None
) -> Iterator[PlatformStatus | PlatformError]:
    number = 0
    while looks is None or number < looks:
        if number:
            time.sleep(interval_s)
        number += 1
        try:
            yield client.get(PATH, PlatformStatus)
        except FINAL:
            raise
        except PlatformError as error:
            yield error


def _stream(views: Iterator[PlatformStatus | PlatformError]) -> None:
    for view in views:
        if isinstance(view, PlatformStatus):
            typer.echo(view.model_dump_json())
        else:
            typer.echo(orjson.dumps({"state": "silent", "reason": view.message}).decode())


def _live(views: Iterator[PlatformStatus | PlatformError], out: Console) -> None:
    with Live(console=out, auto_refresh=False, screen=False) as live:
        for view in views:
            live.update(_shown(view, out.width), refresh=True)


def _lines(views: Iterator[PlatformStatus | PlatformError], out: Console) -> None:
    for view in views:
        if not isinstance(view, PlatformStatus):
            out.print(view.message)
            continue
        for daemon in view.daemons:
            for replica in daemon.replicas:
                told = zip(COLUMNS[1:], _cells(replica)[1:], strict=True)
                figures = " ".join(f"{name}={value}" for name, value in told if value not in {"", "–"})
                out.print(f"{view.as_of:%H:%M:%S} {daemon.name} {replica.url} {figures}", soft_wrap=True)


def _shown(view: PlatformStatus | PlatformError, width: int) -> RenderableType:
    """A line a replica, whatever the width: who watches wants to see all of them."""
    if not isinstance(view, PlatformStatus):
        return Text(view.message, style="red")
    rows = list(_labelled(view))
    table, notes = _parted(rows, width)
    table.title = f"{view.state} at {view.as_of.astimezone():%H:%M:%S}"
    table.title_style = STYLES[view.state]
    table.title_justify = "left"
    return Group(table, *notes)


def _labelled(view: PlatformStatus) -> Iterator[dict[str, Text]]:
    """The cells of every replica by column, under the name that `stillhouse status` gives it."""
    for daemon in view.daemons:
        for number, replica in enumerate(daemon.replicas, 1):
            cells = dict(zip(COLUMNS, map(Text, _cells(replica)), strict=True))
            cells["replica"] = Text(daemon.name if number == 1 else f"{daemon.name}.{number}")
            cells["state"].stylize(STYLES[replica.state])
            yield cells


def _parted(rows: Sequence[Mapping[str, Text]], width: int) -> tuple[Table, list[Text]]:
    """The table, and what stands below it where there is no room beside."""
    if width >= MORE_CHARS_MIN:
        wide = Column("more", wraps=True)
        return fitted([*FIGURES, wide], (*FIRST_NEEDED, "more"), rows, width), []
    notes = [Text(": ").join((row["replica"], row["more"])) for row in rows if row["more"]]
    for note in notes:
        note.truncate(width, overflow="ellipsis")
    return fitted(FIGURES, FIRST_NEEDED, rows, width), notes


def _cells(replica: ReplicaStatus) -> list[str]:
    latency = replica.latency
    return [
        replica.url,
        f"{replica.state}, ejected" if replica.ejected else replica.state,
        _rate(replica.requests_per_s),
        _rate(replica.errors_per_s),
        "–" if latency is None else _milliseconds(latency.p50_ms),
        "–" if latency is None else _milliseconds(latency.p99_ms),
        _count(replica.in_flight),
        _count(replica.waiting),
        _bytes(replica.memory_bytes),
        "; ".join(_more(replica)),
    ]


def _more(replica: ReplicaStatus) -> Iterator[str]:
    """What only some daemons have, and what is missing."""
    if replica.overhead is not None:
        yield f"overhead p99 {_milliseconds(replica.overhead.p99_ms)}"
    if replica.cache is not None:
        share = replica.cache.hit_share
        yield f"cache {_bytes(replica.cache.bytes)}" + ("" if share is None else f", hits {share:.0%}")
    if replica.spool is not None:
        yield f"spool {replica.spool.records} records, {_bytes(replica.spool.bytes)}"
    if replica.log is not None:
        yield f"log {_bytes(replica.log.bytes)}"
    if replica.datasets is not None:
        yield f"{replica.datasets.datasets} datasets" + (
            ", a stage runs" if replica.datasets.job_running else ""
        )
    for name, reason in replica.missing.items():
        yield f"{name}: {reason}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value / 2**20:.0f} MiB" if value >= 2**20 else f"{value / 2**10:.0f} KiB"
