"""`/v1/messages` in Anthropic's words: its requests as ours, our answers as its messages and events."""

from chatd.engine.surfaces.messages.answers import MessagesSurface
from chatd.engine.surfaces.messages.questions import asked

__all__ = ["MessagesSurface", "asked"]
