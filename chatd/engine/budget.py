"""What each key may spend a day: reserved before a call, settled after it, kept over restarts.

A day is one of UTC. Every process writes its own totals beside those of the others and reads theirs, so
replicas on one folder know of each other within the interval at which that is done.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson
import structlog

from chatd.engine.config import BudgetsSpec
from services import ids
from services.errors import Overloaded

log = structlog.get_logger(__name__)

NOBODY: Final = "-"
"""The key of callers without one."""


class Reservation:
    """Money put aside for one attempt, until it is settled."""

    __slots__ = ("_amount", "_day", "_ledger", "_open", "_who")

    def __init__(self, ledger: "Ledger", who: str, day: str, amount: float) -> None:
        self._ledger = ledger
        self._who = who
        self._day = day
        self._amount = amount
        self._open = True

    def settle(self, cost_usd: float | None) -> None:
        """What it has cost; None where nobody knows, then all that was put aside counts as spent."""
        if self._open:
            self._open = False
            spent = self._amount if cost_usd is None else cost_usd
            self._ledger.settle(self._who, self._day, reserved=self._amount, spent=spent)


class Ledger:
    """Who has spent what today. Belongs to one event loop."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now
        self._dawn = self._midnight = 0.0
        self._name = f"{ids.uuid7()}.json"
        self._day = ""
        self._spent: dict[str, float] = {}
        self._reserved: dict[str, float] = {}
        self._others: dict[str, float] = {}
        self._dirty = False
        self._turn()

    def left(self, who: str | None, rules: BudgetsSpec) -> float | None:
        """US dollars that are neither spent nor put aside; None without a limit."""
        if rules.usd_a_day is None and not rules.keys:
            return None
        key = who or NOBODY
        limit = rules.keys.get(key, rules.usd_a_day)
        if limit is None:
            return None
        self._turn()
        used = self._spent.get(key, 0.0) + self._reserved.get(key, 0.0) + self._others.get(key, 0.0)
        return limit - used

    def refusal(self, who: str | None, amount: float | None, rules: BudgetsSpec) -> Overloaded | None:
        """Why money cannot be put aside; None when it can. `amount` is None where it is unknown."""
        left = self.left(who, rules)
        if left is None:
            return None
        if amount is None and rules.unknown_cost == "refuse":
            return self._refused("nobody knows the price of this model, so that this key may not call it")
        if left <= 0 or left < (amount or 0.0):
            return self._refused(
                f"this key has {max(left, 0):.6f} US dollars left today;"
                f" the call may cost {amount or 0.0:.6f}"
            )
        return None

    def reserve(self, who: str | None, amount: float | None) -> Reservation:
        """Put money aside. Only when there is no `refusal`."""
        key = who or NOBODY
        wanted = amount or 0.0
        self._reserved[key] = self._reserved.get(key, 0.0) + wanted
        return Reservation(self, key, self._day, wanted)

    def settle(self, who: str, day: str, *, reserved: float, spent: float) -> None:
        self._turn()
        if day == self._day:
            self._reserved[who] = max(0.0, self._reserved.get(who, 0.0) - reserved)
            if not self._reserved[who]:
                del self._reserved[who]
        if spent:  # a call over midnight is paid on the day it ends
            self._spent[who] = self._spent.get(who, 0.0) + spent
            self._dirty = True

    @property
    def reserved(self) -> float:
        """All that is put aside, for those who look for leaks."""
        return sum(self._reserved.values())

    async def share(self) -> None:
        """Write what this process has spent, read what the others have. Small files, once a second or so."""
        self.write()
        self.read()

    def write(self) -> None:
        if not self._dirty:
            return
        folder = self._folder / self._day
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._name
        hidden = folder / f".{self._name}"
        hidden.write_bytes(orjson.dumps(self._spent))
        hidden.replace(path)
        self._dirty = False

    def read(self) -> None:
        self._turn()
        totals: defaultdict[str, float] = defaultdict(float)
        for path in (self._folder / self._day).glob("[!.]*.json"):
            if path.name == self._name:
                continue
            for who, amount in self._read(path).items():
                totals[who] += amount
        self._others = dict(totals)

    def _turn(self) -> None:
        """Begin the day that it is: a new one, or an earlier one again where the clock was set back."""
        if self._dawn <= self._now() < self._midnight:
            return
        if self._day:
            self.write()
        today = datetime.fromtimestamp(self._now(), UTC).date()
        dawn = datetime.combine(today, datetime.min.time(), UTC)
        self._dawn, self._midnight = dawn.timestamp(), (dawn + timedelta(days=1)).timestamp()
        self._day = today.isoformat()
        self._spent, self._reserved, self._others = self._read(self._folder / self._day / self._name), {}, {}
        for folder in sorted(self._folder.glob("????-??-??")):
            if folder.name < (today - timedelta(days=1)).isoformat():
                _remove(folder)

    @staticmethod
    def _read(path: Path) -> dict[str, float]:
        """What a process has spent; nothing where it has no file."""
        try:
            spent: dict[str, float] = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, orjson.JSONDecodeError):
            log.warning("a file of spendings cannot be read", file=path.name)
            return {}
        return spent

    def _refused(self, why: str) -> Overloaded:
        return Overloaded(
            f"{why}; the next day begins at 00:00 UTC",
            code="budget_exceeded",
            retry_after_s=self._midnight - self._now(),
        )


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
