"""How a daemon tells the gateway what an answer cost, where the tokens of its caller's key are counted."""

from typing import Final

METERED_HEADER: Final = "x-stillhouse-metered"
"""Asks for it. Callers cannot send it, nor see what is told."""

TOKENS_HEADER: Final = "x-stillhouse-tokens"
"""Tells it, where it is known before the body."""


def comment(tokens: int) -> bytes:
    """Tells it within a stream of events, as a comment: no client takes notice of those."""
    return b': "total_tokens":%d\n\n' % tokens
