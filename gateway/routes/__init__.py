"""What the gateway answers: the table of passages to the daemons, and the short ways through it."""

from gateway.routes.embeddings import EmbeddingsDoor
from gateway.routes.passages import routes
from gateway.routes.relay import relay_doors
from services.middleware import Frame
from services.protocol import Doors

__all__ = ["doors", "routes"]


def doors(frame: Frame, *, body_bytes_max: int) -> Doors:
    """The short ways: of embeddings, and of the passages by POST."""
    embeddings = EmbeddingsDoor(frame, body_bytes_max=body_bytes_max)
    return Doors([embeddings, *relay_doors(frame, body_bytes_max=body_bytes_max)])
