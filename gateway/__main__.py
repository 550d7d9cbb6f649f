"""`python -m gateway`."""

from gateway.app import create_app
from gateway.settings import Settings
from services import daemon

if __name__ == "__main__":
    daemon.run("gateway", Settings, create_app)
