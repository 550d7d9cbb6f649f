"""`python -m chatd`."""

from chatd.app import create_app
from chatd.settings import Settings
from services import daemon

if __name__ == "__main__":
    daemon.run("chatd", Settings, create_app)
