"""`python -m vectord`."""

from services import daemon
from vectord.app import create_app
from vectord.settings import Settings

if __name__ == "__main__":
    daemon.run("vectord", Settings, create_app)
