"""What the gateway answers: the table of passages to the daemons, and the short ways through it."""

from gateway.routes import passages, status
from gateway.routes.embeddings import EmbeddingsDoor
from gateway.routes.origins import DoorForPrograms
from gateway.routes.passages import MESSAGES, MESSAGES_ID
from gateway.routes.porter import Porter
from gateway.routes.relay import relay_doors
from services import daemon, protocol
from services.middleware import Frame
from services.protocol import Door, Doors

__all__ = ["MESSAGES", "MESSAGES_ID", "doors", "porter", "routes"]

routes = daemon.router()
routes.include_router(passages.routes)
routes.include_router(status.routes)


def doors(frame: Frame, *, body_bytes_max: int, pages: bool) -> Doors:
    """The short ways: of embeddings, and of the passages by POST. `pages`: those of other origins may ask."""
    embeddings = EmbeddingsDoor(frame, body_bytes_max=body_bytes_max)
    found: list[Door] = [embeddings, *relay_doors(frame, body_bytes_max=body_bytes_max)]
    return Doors([DoorForPrograms(door) for door in found] if pages else found)


def porter(frame: Frame, *, per_s_max: int, pages: bool) -> protocol.Porter:
    """Who turns strangers away."""
    return Porter(frame, per_s_max=per_s_max, pages=pages)
