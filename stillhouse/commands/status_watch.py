"""`stillhouse status --watch`: the platform as the gateway sees it, again and again."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from schemas.status import PlatformStatus, ReplicaStatus
from services.errors import Forbidden, InvalidRequest, PlatformError, Unauthenticated
from stillhouse.client import GatewayClient
from stillhouse.output import console
from stillhouse.settings import CliSettings

PATH = "/v1/status"

STYLES = {"ready": "green", "degraded": "yellow", "unavailable": "red", "silent": "red"}
COLUMNS = ("replica", "state", "req/s", "5xx/s", "p50", "p99", "in flight", "waiting", "memory", "more")
LEFT = ("replica", "state", "more")
GAP_CHARS = 2
FIRST_NEEDED = ("replica", "state", "req/s", "p99", "5xx/s", "waiting", "in flight", "p50", "memory")
"""Where a terminal has no room for all columns, these come first."""
MORE_CHARS_MIN = 40
"""Narrower than this, the last column stands below the table."""

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
    rows = [(STYLES[replica.state], cells) for replica, cells in _labelled(view)]
    columns = _that_fit([cells for _, cells in rows], width)
    beside = "more" in columns
    table = Table(
        *(Column(name, justify="left" if name in LEFT else "right", no_wrap=True) for name in columns),
        title=f"{view.state} at {view.as_of.astimezone():%H:%M:%S}",
        title_style=STYLES[view.state],
        title_justify="left",
        box=None,
        padding=(0, GAP_CHARS, 0, 0),
    )
    for style, cells in rows:
        table.add_row(*(Text(cells[name], style=style if name == "state" else "") for name in columns))
    notes = [] if beside else [f"{cells['replica']}: {cells['more']}" for _, cells in rows if cells["more"]]
    return Group(table, *(Text(note, no_wrap=True, overflow="ellipsis") for note in notes))


def _labelled(view: PlatformStatus) -> Iterator[tuple[ReplicaStatus, dict[str, str]]]:
    """Every replica with its cells by column, under the name that `stillhouse status` gives it."""
    for daemon in view.daemons:
        for number, replica in enumerate(daemon.replicas, 1):
            label = daemon.name if number == 1 else f"{daemon.name}.{number}"
            yield replica, {**dict(zip(COLUMNS, _cells(replica), strict=True)), "replica": label}


def _that_fit(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The columns that there is room for, in their order; the last one only with much of it."""
    chosen: set[str] = set()
    left = width
    for name in FIRST_NEEDED:
        left -= max(len(name), *(len(cells[name]) for cells in rows)) + GAP_CHARS
        if left < 0:
            break
        chosen.add(name)
    if left >= MORE_CHARS_MIN:
        chosen.add("more")
    return [name for name in COLUMNS if name in chosen]


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
