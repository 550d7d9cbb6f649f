"""The APIs in whose words `chatd` is asked and answers: OpenAI's two, and Anthropic's."""

from chatd.engine.surfaces import messages, responses
from chatd.engine.surfaces.common import Heading, Surface, Writer
from chatd.engine.surfaces.messages import MessagesSurface
from chatd.engine.surfaces.openai import ChatSurface
from chatd.engine.surfaces.responses import ResponsesSurface

__all__ = [
    "ChatSurface",
    "Heading",
    "MessagesSurface",
    "ResponsesSurface",
    "Surface",
    "Writer",
    "messages",
    "responses",
]
