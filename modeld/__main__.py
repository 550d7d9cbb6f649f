from modeld.app import create_app
from modeld.settings import Settings
from services import daemon

if __name__ == "__main__":
    settings = Settings()
    daemon.serve(create_app(settings), settings)
