"""Made-up work in families: what is said once, and again renamed, re-dated, reworded, step by step."""

import random
from collections.abc import Iterator
from typing import Final

from tests.unit.distill.builders import Json, run, verdict

LETTERS: Final = "abcdefghijklmnopqrstuvw"
NAMES: Final = ("Ann Lee", "Bo Diaz", "Cy Young", "Dee Park", "Eve Stone", "Flo Hart")
WORDS_ASKED, WORDS_ANSWERED = 30, 60
REWORDED: Final = 1 / 25
"""The share of words that one rewording changes: their texts stay near duplicates."""
STEPS: Final = 4
"""Rewordings of rewordings: the last is no near duplicate of the first any more."""


def family(number: int) -> Iterator[Json]:
    """Runs that belong together. No two families share anything; each run's order tells its family."""
    chance = random.Random(number)
    asked, answered = _words(chance, WORDS_ASKED), _words(chance, WORDS_ANSWERED)
    copies = [(asked, answered)] * 4
    for _ in range(STEPS):
        last_asked, last_answered = copies[-1]
        copies.append((_reworded(chance, last_asked), _reworded(chance, last_answered)))
    for copy, (question, answer) in enumerate(copies):
        date = f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        name, order = chance.choice(NAMES), f"F{number}-{copy}"
        yield run(
            f"f{number}-{copy}",
            question=f"Order {order}: ask {name} for {date}. {' '.join(question)}",
            answer=f"We asked {name} for {date}. {' '.join(answer)}",
            task={"kind": "email", "key": order},
            episode_id=f"e{number}-{copy}",
            verdict=verdict(),
        )


def family_of(evidence: Json) -> int:
    """Which family a piece of evidence comes from."""
    return int(evidence["task"]["key"][1:].partition("-")[0])


def families(count: int) -> list[Json]:
    return [one for number in range(count) for one in family(number)]


def _words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices(LETTERS, k=7)) for _ in range(count)]


def _reworded(chance: random.Random, words: list[str]) -> list[str]:
    changed = list(words)
    for place in chance.sample(range(len(words)), max(1, round(len(words) * REWORDED))):
        changed[place] = _words(chance, 1)[0]
    return changed
