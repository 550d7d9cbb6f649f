"""`python -m modeld`."""

from modeld.app import create_app
from modeld.settings import Settings
from services import daemon

if __name__ == "__main__":
    daemon.run("modeld", Settings, create_app)
