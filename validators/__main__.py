"""`python -m validators`."""

from services import daemon
from validators.app import create_app
from validators.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    daemon.serve(create_app(settings), settings)
