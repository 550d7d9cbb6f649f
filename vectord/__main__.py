from services import daemon
from vectord.app import create_app
from vectord.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    daemon.serve(create_app(settings), settings)
