"""What the gateway answers: the table of passages to the daemons, and the short way for embeddings."""

from gateway.routes.embeddings import EmbeddingsDoor
from gateway.routes.passages import routes

__all__ = ["EmbeddingsDoor", "routes"]
