"""What an outage did to the traffic, and the table of it in the documentation."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.traffic import NEEDS, REPEATABLE, Outcome, Traffic, told
from tests.processes import ROOT

PAGE: Final = ROOT / "docs" / "chaos.md"
RECOVERY_S: Final = float(os.environ.get("RECOVERY_S", "60"))  # `make chaos` asks for 5
ANSWER_S: Final = float(os.environ.get("ANSWER_S", "10"))  # `make chaos` asks for 2
ANSWERS: Final = frozenset({200, 503, 504})


@dataclass(frozen=True)
class Effect:
    """What the kinds of requests that an outage concerned were answered, and the rest.

    `recovered_s` is the time from when it was over to the end of the last failure, `slowest_s` the longest
    time that a failure took to be told.
    """

    requests: int
    spared: list[Outcome]
    failed: list[Outcome]
    strange: list[Outcome]
    slowest_s: float
    recovered_s: float

    @classmethod
    def of(
        cls,
        traffic: Traffic,
        concerned: Collection[str],
        *,
        over_s: float,
        answers: Collection[int] = ANSWERS,
    ) -> "Effect":
        """Of an outage that was over at `over_s`, and concerned these kinds; `answers` are no surprise."""
        assert not traffic.unsent, f"{traffic.unsent} requests could not be sent"
        own = traffic.of(concerned)
        failed = [each for each in own if not each.ok]
        return cls(
            requests=len(traffic.outcomes),
            spared=[each for each in traffic.outcomes if each.kind not in concerned and not each.ok],
            failed=failed,
            strange=[each for each in failed if each.status not in answers or each.code is None],
            slowest_s=max((each.seconds for each in failed), default=0.0),
            recovered_s=max((each.ended_s - over_s for each in failed), default=0.0),
        )

    def check(self) -> None:
        """The others' routes never fail; its own fail in the envelope, soon, and not for long."""
        assert not self.spared, f"kinds that do not need it failed: {told(self.spared)}"
        assert not self.strange, f"not what may be answered, or not in the envelope: {told(self.strange)}"
        assert self.slowest_s <= ANSWER_S, f"a failure was told after {self.slowest_s:.2f} s"
        assert self.recovered_s <= RECOVERY_S, f"failures until {self.recovered_s:.2f} s after its return"

    @property
    def repeatable_failed(self) -> list[Outcome]:
        return [each for each in self.failed if each.kind in REPEATABLE]

    def cells(self) -> list[str]:
        statuses = ", ".join(str(status) for status in sorted({each.status for each in self.failed}))
        return [
            f"{self.requests:,}",
            str(len(self.spared)),
            f"{len(self.failed)} ({statuses})" if self.failed else "0",
            f"{self.slowest_s:.1f} s" if self.failed else "–",
            f"{max(0.0, self.recovered_s):.1f} s" if self.failed else "at once",
        ]


def kinds_of(*daemons: str) -> list[str]:
    """The kinds of requests that need one of them."""
    return [kind for kind, daemon in NEEDS.items() if daemon in daemons]


class Table:
    """The rows of one part of the page, between its two marks; it is written with `CHAOS_PAGE` set."""

    def __init__(self, name: str, columns: Sequence[str], *, keys: int = 1) -> None:
        """The first `keys` columns say what a row is about."""
        self._name = name
        self._keys = keys
        self._columns = columns
        self._rows: list[Sequence[str]] = []

    def add(self, *cells: str) -> None:
        self._rows.append(cells)

    def publish(self) -> None:
        """Rows that were not measured this time stay as they are on the page."""
        if not self._rows:
            return
        print(f"\n{self._text(self._rows)}")
        if os.environ.get("CHAOS_PAGE"):
            self._write(PAGE)

    def _write(self, page: Path) -> None:
        first, last = f"<!-- {self._name} -->", f"<!-- end of {self._name} -->"
        before, _, rest = page.read_text().partition(first)
        old, found, after = rest.partition(last)
        assert found, f"{page} has no {first} … {last}"
        cells = [line.strip("| ").split(" | ") for line in old.splitlines() if line.startswith("| ")]
        rows = {tuple(row[: self._keys]): row for row in [*cells[2:], *self._rows]}
        page.write_text(f"{before}{first}\n{self._text(rows.values())}\n{last}{after}")

    def _text(self, rows: Iterable[Sequence[str]]) -> str:
        lines = [self._columns, ["---"] * len(self._columns), *rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in lines)
