"""What the export does to each row, in microseconds of one core."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from distill.engine.exports import near
from distill.engine.exports.pii import Scanner
from schemas.distill import PiiPolicy

pytestmark = pytest.mark.bench

COUNT = 3000
CHARS = 1500


def texts() -> list[str]:
    letters = random.Random(20261103)
    words = [
        "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=letters.randint(3, 9))) for _ in range(4000)
    ]

    def word() -> str:
        drawn = letters.random()
        one = letters.choice(words)
        if drawn < 0.05:
            return one.capitalize()
        return f"W-{letters.randint(0, 99999)}" if drawn < 0.08 else one

    return [" ".join(word() for _ in range(CHARS // 7)) for _ in range(COUNT)]


def cost_us(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for item in items:
            work(item)
        best = min(best, (time.process_time() - start) / len(items) * 1e6)
    return best


def test_costs_of_a_row() -> None:
    drawn = texts()
    forms = [near.masked(text) for text in drawn]
    scanner = Scanner(PiiPolicy())
    rows = [{"messages": [{"role": "user", "content": text}]} for text in drawn]
    signature = cost_us(lambda text: near.bands(near.signature(near.shingles(near.masked(text)))), drawn)
    print(f"\nnear-duplicate signature of {len(drawn[0])} characters: {signature:.0f} us")
    print(f"  of that masking slots: {cost_us(near.masked, drawn):.0f} us")
    pairs = list(zip(forms[::2], forms[1::2], strict=True))
    compared = cost_us(lambda pair: near.alike(near.shingles(pair[0]), near.shingles(pair[1])), pairs)
    print(f"exact comparison of two texts: {compared:.0f} us")
    print(f"search for personal data: {cost_us(scanner.clean, rows):.0f} us")
    assert signature <= 80
