"""`/v1/responses` in OpenAI's words: its requests as ours, our answers as its items and events."""

from chatd.engine.surfaces.responses.answers import ResponsesSurface
from chatd.engine.surfaces.responses.questions import asked

__all__ = ["ResponsesSurface", "asked"]
