"""Named random streams: what one part draws never shifts what another part gets."""

import random
from datetime import date, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

EPOCH = date(1970, 1, 1)


def stream(seed: int, name: str) -> random.Random:
    """A generator of the seed and the name alone (a text seed goes through SHA-512, not `hash`)."""
    return random.Random(f"{seed}/{name}")  # noqa: S311 - sample data has to be predictable


def array_stream(seed: int, part: int) -> np.random.Generator:
    """The same for arrays; `part` numbers the piece, so that pieces can be drawn in any order."""
    return np.random.default_rng([seed, part])


def day_number(day: date) -> int:
    """Days since 1970-01-01, as `date32` counts them."""
    return (day - EPOCH).days


def birthday_years_before(day: date, years: int) -> date:
    """The date of birth of someone who turns `years` on that day (29 February counts as the 28th)."""
    if (day.month, day.day) == (2, 29):
        day -= timedelta(days=1)
    return day.replace(year=day.year - years)
