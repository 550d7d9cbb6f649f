"""`python -m embedd`."""

from embedd.app import create_app
from embedd.settings import Settings
from services import daemon

if __name__ == "__main__":
    daemon.run("embedd", Settings, create_app)
