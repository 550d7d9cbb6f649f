"""What works on a data folder without a service: `python -m distill audit` and `python -m distill keygen`.

stdout holds one JSON object, stderr the progress (`progress 0.42`, a line each) and what went wrong. The
command line shows both to people.
"""

import argparse
import re
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from distill.engine import keys
from distill.engine.audit import AuditOptions, audit
from distill.engine.audit.audit import SAMPLE_DEFAULT
from distill.engine.progress import Progress
from services.errors import PlatformError

ANCHOR: Final = re.compile(r"([1-9][0-9]{0,8}):([0-9a-f]{64})")
STATUS: Final = {"vouched": 0, "broken": 1, "partially_vouched": 3}
FAILED: Final = 1
USAGE: Final = 2
SEED_MAX: Final = 2**32


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status: 0, 1 failed or broken, 2 usage, 3 partially vouched."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it like any command, without a stack trace
    chosen = _parser().parse_args(arguments)
    if not chosen.data.is_dir() and chosen.command == "audit":
        print(f"there is no folder {chosen.data}", file=sys.stderr)  # noqa: T201 - a command
        return USAGE
    try:
        return _keygen(chosen.data) if chosen.command == "keygen" else _audit(chosen)
    except PlatformError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - a command
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("distill", description="Without arguments: serve.")
    commands = parser.add_subparsers(dest="command", required=True)
    auditing = commands.add_parser("audit", help="hold a data folder against its receipts")
    amount = auditing.add_mutually_exclusive_group()
    amount.add_argument("--sample", type=_count, default=SAMPLE_DEFAULT, metavar="N", help="links a file")
    amount.add_argument("--all", action="store_true", help="follow every link")
    auditing.add_argument("--rebuild", action="store_true", help="make the evidence anew, and compare")
    auditing.add_argument("--seed", type=_count, default=None, help="draw the same sample again")
    auditing.add_argument("--key", type=Path, default=None, help="the public key, kept elsewhere")
    auditing.add_argument("--anchor", type=_anchor, default=None, metavar="COUNT:SHA256")
    for command in (
        auditing,
        commands.add_parser("keygen", help="make the key that receipts are signed with"),
    ):
        command.add_argument("--data", type=Path, required=True, help="the data folder")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _anchor(text: str) -> tuple[int, str]:
    match = ANCHOR.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not COUNT:SHA256, as an audit prints it")
    return int(match[1]), match[2]


def _audit(chosen: argparse.Namespace) -> int:
    options = AuditOptions(
        sample=None if chosen.all else chosen.sample,
        # Drawn anew each time: whoever changes something must not know which links will be followed.
        seed=secrets.randbelow(SEED_MAX) if chosen.seed is None else chosen.seed,
        public_key=chosen.key,
        anchor=chosen.anchor,
        rebuild=chosen.rebuild,
    )
    report = audit(chosen.data.absolute(), options, _Told())
    _print(report.model_dump(mode="json", by_alias=True))
    return STATUS[report.outcome]


def _keygen(data: Path) -> int:
    public = keys.generate(data.absolute())
    _print(
        {
            "key_id": public.id,
            "public_key": public.pem,
            "private_path": str(keys.private_path(data)),
            "public_path": str(keys.public_path(data)),
        }
    )
    return 0


def _print(value: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


class _Told(Progress):
    """Says every whole per cent on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._said = -1

    def reach(self, done: int, total: int, *, start: float = 0.0, end: float = 1.0) -> None:
        super().reach(done, total, start=start, end=end)
        if (per_cent := int(self.fraction * 100)) > self._said:
            self._said = per_cent
            print(f"progress {per_cent / 100:.2f}", file=sys.stderr, flush=True)  # noqa: T201 - a command
