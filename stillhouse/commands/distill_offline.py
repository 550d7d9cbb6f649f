"""`stillhouse distill audit` and `keygen`: work on the data folder itself, whether or not anything runs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Annotated, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

from schemas.proof import Audit, AuditFinding
from stillhouse.commands.progress import progress
from stillhouse.output import JsonOption, console, print_json
from stillhouse.root import import_root
from stillhouse.settings import load_settings

AUDIT_EXAMPLES = """\
Examples:

  stillhouse distill audit                                the data folder of STILLHOUSE_DATA

  stillhouse distill audit --data /backup/data --all      every link, of a copy

  stillhouse distill audit --all --rebuild                evidence and categories made anew, and compared

  stillhouse distill audit --sample 100 --seed 7 --json

  stillhouse distill audit --key receipts.pub.pem --anchor 12:9f86d081…

Exit status: 0 everything is vouched for, 1 something is not as it was signed, 2 usage, 3 nothing
contradicts but something could not be checked.
"""
KEYGEN_EXAMPLES = """\
Examples:

  stillhouse distill keygen

  stillhouse distill keygen --data /srv/stillhouse --json
"""
USAGE = 2
STYLES = {"vouched": "green", "partially_vouched": "yellow", "broken": "red"}
WORDS = {
    "vouched": "everything is there and as it was signed",
    "partially_vouched": "nothing contradicts, but not everything could be checked",
    "broken": "not as it was signed",
}

DataOption = Annotated[
    Path | None,
    typer.Option(help="The data folder; STILLHOUSE_DATA unless given.", show_default=False),
]


def audit(
    data: DataOption = None,
    *,
    sample: Annotated[
        int, typer.Option(min=0, help="Links that are followed back to the raw bytes, in each file.")
    ] = 1000,
    all_: Annotated[bool, typer.Option("--all", help="Follow every link.")] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Also make evidence and categories anew from the raw bytes, and compare."
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Draw the same sample again; another one unless given.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The public key, from where it is kept; the data folder's unless given."),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT:SHA256",
            help="A head that an earlier audit printed: the chain must still hold it.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hold the data folder against its receipts: signatures, chain, products, and links to the raw bytes."""
    arguments = ["audit", "--data", str(data or load_settings().data)]
    arguments += ["--all"] if all_ else ["--sample", str(sample)]
    arguments += ["--rebuild"] if rebuild else []
    for name, value in (("--seed", seed), ("--key", key), ("--anchor", anchor)):
        arguments += [name, str(value)] if value is not None else []
    status, out = _run(arguments)
    report = Audit.model_validate_json(out)
    if json:
        print_json(report.model_dump(mode="json", by_alias=True))
    else:
        _show(report, console())
    raise typer.Exit(status)


def keygen(data: DataOption = None, *, json: JsonOption = False) -> None:
    """Make the key that receipts are signed with. One that is there is never overwritten.

    distill makes one itself at its first start; the private key stays in the data folder, readable by its
    owner alone.
    """
    _, out = _run(["keygen", "--data", str(data or load_settings().data)])
    made = orjson.loads(out)
    if json:
        print_json(made)
        return
    shown = console()
    shown.print(f"key {made['key_id']}")
    shown.print(f"private {made['private_path']}")
    shown.print(f"public {made['public_path']}: keep a copy elsewhere, for `audit --key`")


# --- distill, as a process of its own -----------------------------------------------------------


def _run(arguments: Sequence[str]) -> tuple[int, bytes]:
    """Run distill's offline command; its status and what it printed. Exits where it printed nothing."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            part for part in (str(import_root()), os.environ.get("PYTHONPATH")) if part
        ),
    }
    # Its answer goes into a file: a full pipe would hold it up while its progress is being read.
    with tempfile.TemporaryFile() as answer:
        command = [sys.executable, "-P", "-m", "distill", *arguments]
        with subprocess.Popen(command, env=environment, stdout=answer, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            said = _watch(process.stderr)
        answer.seek(0)
        out = answer.read()
    if not out:
        _give_up(process.returncode, said)
    return process.returncode, out


def _watch(stderr: IO[bytes]) -> list[str]:
    """Show progress until the end; returns whatever else was said."""
    with progress(console(stderr=True), "audit") as report:
        return _each(stderr, lambda fraction: report("audit", fraction))


def _each(stderr: IO[bytes], report: Callable[[float], None]) -> list[str]:
    said = []
    for line in stderr:
        text = line.decode(errors="replace").rstrip("\n")
        if text.startswith("progress "):
            report(float(text.removeprefix("progress ")))
        elif text:
            said.append(text)
    return said


def _give_up(status: int, said: Sequence[str]) -> NoReturn:
    message = said[-1].rpartition(": error: ")[2] if said else f"distill ended with status {status}"
    if status == USAGE:
        raise typer.BadParameter(message)
    typer.echo(f"stillhouse: {message}", err=True)
    raise typer.Exit(1)


# --- what people see ----------------------------------------------------------------------------


def _show(report: Audit, out: Console) -> None:
    if report.findings:
        table = Table("code", "file", "where", "expected", "found", "message")
        for finding in report.findings:
            table.add_row(
                finding.code,
                finding.file,
                _where(finding),
                _short(finding.expected),
                _short(finding.found),
                finding.message,
            )
        out.print(table)
    if report.findings_left_out:
        out.print(f"and {report.findings_left_out} more")
    for one in report.unchecked:
        out.print(f"not checked: {one.file}: {one.message} ({one.code})")
    out.print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.checked.items()))
    sample = (
        "every link" if report.sample is None else f"up to {report.sample} links a file, seed {report.seed}"
    )
    out.print(f"followed: {sample}")
    if report.head is not None:
        head = f"{report.head.count}:{report.head.last.sha256}"
        out.print(f"head {head}\nkey {report.key_id}\nNote both down elsewhere, for --anchor and --key.")
    out.print(f"{report.outcome}: {WORDS[report.outcome]}", style=STYLES[report.outcome])


def _where(finding: AuditFinding) -> str:
    if finding.line is not None:
        return f"line {finding.line}"
    return f"offset {finding.offset}" if finding.offset is not None else ""


def _short(value: str | None) -> str:
    """Hashes are told apart by their beginnings; --json has the whole."""
    if value is None:
        return ""
    return value if len(value) <= 32 else f"{value[:16]}…"
