"""The command line: its frame, and the one place where failures become words and an exit status."""

import os
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from services.errors import InvalidRequest, PlatformError, Unauthenticated
from services.telemetry import redact
from stillhouse.commands import bench, demo, distill, keys, models, replay, runs, status, up, validate, vector
from stillhouse.review.visible import visible

EXAMPLES = """\
Examples:

  stillhouse up                                   run everything until Ctrl-C

  stillhouse status                               how every process is (--watch: and every replica)

  stillhouse keys create --name laptop            a key for the gateway

  stillhouse models --json                        what can be asked for

  stillhouse validate fill.json --context order.json

  stillhouse distill export --kind sft --target openai

  stillhouse runs show RUN_ID                     a run, from its request to the rows that it became

  stillhouse bench                                how many requests are answered, and how fast

  stillhouse replay --model ollama/smollm2:135m --limit 100 --against recorded

Commands talk to the gateway at STILLHOUSE_GATEWAY_URL (default http://127.0.0.1:3100) with the key in
STILLHOUSE_API_KEY. Exit status: 0 done, 1 a check failed, 2 usage.
"""


class Commands(TyperGroup):
    """Our commands: a failure of ours or of the system is one message on stderr, never a stack trace."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run, and end the process. Whatever typer does not end by itself is told here."""
        try:
            return super().main(*args, **options)
        except PlatformError as error:
            # What makes no sense to a daemon is like a wrong option.
            _end(_refused(error), 2 if isinstance(error, InvalidRequest) else 1)
        except OSError as error:  # a folder that is not there, a disk that is full
            _give_up_output()
            about = f"{error.filename}: " if error.filename is not None else ""
            _end(f"{about}{error.strerror or error}", 1)
        except Exception as error:  # noqa: BLE001 - the last boundary: what is told here is a defect of ours
            _end(_reported(error), 1)


def _end(message: str, status: int) -> NoReturn:
    typer.echo(f"stillhouse: {visible(message)}", err=True)
    sys.exit(status)


def _give_up_output() -> None:
    """Let go of what stdout did not take: Python would try again at its end, and say so in its own way."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _refused(error: PlatformError) -> str:
    named = error.param is None or error.param in error.message
    about = "" if named else f" (`{error.param}`)"
    todo = "; commands present the key in STILLHOUSE_API_KEY" if isinstance(error, Unauthenticated) else ""
    return f"{error.message}{about}{todo}"


def _reported(error: Exception) -> str:
    """What to say of a defect, after putting down where it was met."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="stillhouse-", suffix=".log", delete=False
    ) as file:
        file.write(redact("".join(traceback.format_exception(error))))
    return f"unexpected failure ({type(error).__name__}), a defect of ours; {file.name} says where"


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold a key
    epilog=EXAMPLES,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"stillhouse {version('stillhouse')}")
        except PackageNotFoundError:
            typer.echo("stillhouse (run from the tree, not installed)")
        raise typer.Exit


@app.callback()
def frame(
    *,
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn language-model work into validated, provable, reusable evidence."""


app.command(epilog=up.EXAMPLES)(up.up)
app.command(epilog=status.EXAMPLES)(status.status)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(vector.app, name="vector")
app.add_typer(models.app, name="models")
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.command(epilog=validate.EXAMPLES)(validate.validate)
app.add_typer(distill.app, name="distill")
app.add_typer(runs.app, name="runs")
app.command(epilog=replay.EXAMPLES)(replay.replay)
