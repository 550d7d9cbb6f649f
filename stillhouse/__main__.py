"""The `stillhouse` command."""

import sys
from io import TextIOWrapper

from stillhouse.root import import_root


def main() -> None:
    """Put the kit on the path, which in a wheel it is not, and hand over."""
    sys.path.insert(0, str(import_root()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that does not know a character gets another
            stream.reconfigure(errors="replace")

    from stillhouse.cli import app  # noqa: PLC0415 - it imports the kit, importable from here on

    app(prog_name="stillhouse")


if __name__ == "__main__":
    main()
