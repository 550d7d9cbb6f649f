"""`python -m distill`, or `python -m distill audit …` for what needs no service."""

import sys

from distill.app import create_app
from distill.engine import offline
from distill.settings import Settings
from services import daemon

if __name__ == "__main__":
    if len(sys.argv) > 1:
        raise SystemExit(offline.main(sys.argv[1:]))
    daemon.run("distill", Settings, create_app)
