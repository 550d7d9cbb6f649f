"""`python -m distill`."""

from distill.app import create_app
from distill.settings import Settings
from services import daemon

if __name__ == "__main__":
    settings = Settings()
    daemon.serve(create_app(settings), settings)
