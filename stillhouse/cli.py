"""The command line: its frame, and the one place where failures become words and an exit status."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from services.errors import InvalidRequest, PlatformError
from stillhouse.commands import bench, demo, distill, keys, models, replay, runs, status, up, validate, vector

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
    """Our commands: an expected failure is one message on stderr and a status, never a stack trace.

    The status is 2 where a daemon refused what it was asked as making no sense, like a wrong option, else 1.
    """

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override] # typer's own context is the one given
        try:
            return super().invoke(ctx)
        except PlatformError as error:
            named = error.param is None or error.param in error.message
            about = "" if named else f" (`{error.param}`)"
            typer.echo(f"stillhouse: {error.message}{about}", err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from None


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
app.command()(demo.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(vector.app, name="vector")
app.add_typer(models.app, name="models")
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.command(epilog=validate.EXAMPLES)(validate.validate)
app.add_typer(distill.app, name="distill")
app.add_typer(runs.app, name="runs")
app.command(epilog=replay.EXAMPLES)(replay.replay)
