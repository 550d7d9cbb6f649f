"""`python -m distill`."""

from distill.app import create_app
from distill.settings import Settings
from services import daemon

if __name__ == "__main__":
    daemon.run("distill", Settings, create_app)
