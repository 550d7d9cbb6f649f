"""How texts become weighted words, for documents and queries alike."""

from qdrant_edge import Bm25, Bm25Config


def model() -> Bm25:
    """English stop words and stems, accents folded, the usual k = 1.2 and b = 0.75."""
    return Bm25(Bm25Config(ascii_folding=True))
