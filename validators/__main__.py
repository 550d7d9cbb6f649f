"""`python -m validators`."""

from services import daemon
from validators.app import create_app
from validators.settings import Settings

if __name__ == "__main__":
    daemon.run("validators", Settings, create_app)
