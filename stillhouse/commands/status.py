"""`stillhouse status`: shows how every process is, asked itself."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from stillhouse.commands import status_watch
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings
from stillhouse.supervisor import RunFolder, daemon_specs
from stillhouse.supervisor.watch import ProcessReport, Subject, default_subjects, observe, supervised_subjects
from stillhouse.tables import Column, fitted

STYLES = {"ready": "green", "starting": "yellow", "stopping": "yellow", "restarting": "red", "failed": "red"}
LEFT = ("daemon", "state")
COLUMNS = (*LEFT, "pid", "port", "replicas", "uptime", "memory", "req/s", "5xx", "restarts")
FIRST_NEEDED = (*LEFT, "port", "req/s", "5xx", "memory", "restarts", "uptime", "pid", "replicas")

INTERVAL_S = 1.0
EXAMPLES = """\
Examples:

  stillhouse status                               the processes of this machine

  stillhouse status --watch                       all replicas, as the gateway sees them, once a second

  stillhouse status --watch --interval 5 --json   one JSON object each five seconds
"""

WatchOption = Annotated[
    bool, typer.Option("--watch", help="Ask the gateway about all replicas, again and again (scope admin).")
]
IntervalOption = Annotated[
    float | None,
    typer.Option("--interval", min=0.1, help="With --watch: seconds between two looks.", show_default="1"),
]
LooksOption = Annotated[
    int | None, typer.Option("--looks", min=1, help="With --watch: stop after so many.", show_default=False)
]


def status(
    *,
    watch: WatchOption = False,
    interval: IntervalOption = None,
    looks: LooksOption = None,
    json: JsonOption = False,
) -> None:
    """Show every process: state, port, uptime, memory, requests. Exits with 1 unless all are ready.

    Without a supervisor, whatever listens on the daemons' ports is asked. With --watch, the gateway is asked
    how all replicas are, wherever they run: rates, times, queues, caches, spool, log and datasets.
    """
    settings = load_settings()
    if watch:
        status_watch.watch(settings, interval_s=interval or INTERVAL_S, json=json, looks=looks)
        return
    if interval is not None or looks is not None:
        raise typer.BadParameter("--interval and --looks go with --watch")
    run = RunFolder(settings.data.resolve()).read()
    subjects: list[Subject] = (
        supervised_subjects(run) if run is not None else default_subjects(daemon_specs(settings))
    )
    reports = asyncio.run(observe(subjects))
    ready = bool(reports) and all(report.state == "ready" for report in reports)
    if json:
        print_json(
            {
                "ready": ready,
                "supervisor": {"pid": run.pid, "started_at": run.started_at} if run is not None else None,
                "processes": [report.model_dump(mode="json") for report in reports],
            }
        )
    else:
        _show(reports, supervised=run is not None)
    raise typer.Exit(0 if ready else 1)


def _show(reports: list[ProcessReport], *, supervised: bool) -> None:
    out = console()
    columns = [Column(name, right=name not in LEFT) for name in COLUMNS]
    out.print(fitted(columns, FIRST_NEEDED, list(_rows(reports)), out.width))
    for report in reports:
        if report.reason is not None:
            out.print(f"{report.label}: {report.reason}")
    if not supervised:
        out.print(
            "No supervisor runs on this data folder (`stillhouse up` starts one); the ports were asked."
        )


def _rows(reports: list[ProcessReport]) -> Iterator[dict[str, Text]]:
    names = [report.name for report in reports]
    for report in reports:
        cells = (
            report.label,
            report.state,
            _or_dash(report.pid),
            str(report.port),
            str(names.count(report.name)),
            _duration(report.uptime_s),
            f"{report.rss_bytes / 2**20:.0f} MiB" if report.rss_bytes is not None else "–",
            f"{report.requests_per_s:.1f}" if report.requests_per_s is not None else "–",
            _or_dash(report.errors_5xx),
            _or_dash(report.restarts),
        )
        row = dict(zip(COLUMNS, map(Text, cells), strict=True))
        row["state"].stylize(STYLES.get(report.state, "red"))
        yield row


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
