"""Two arms laid side by side: the tasks that both have, and the groups that these make."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from distill.engine.compare.results import ArmResults, TaskResult
from distill.engine.compare.statistics import Floats, Groups, Ints
from schemas.comparison import Counting, Unit


@dataclass(frozen=True, slots=True)
class Pair:
    """One task under both arms. `label` counts the groups from 0.

    `difference` is that of the shares of repeats that passed, current less baseline.
    """

    baseline: TaskResult
    current: TaskResult
    label: int
    difference: Fraction

    @property
    def task_id(self) -> str:
        return self.baseline.task_id


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tasks in both arms, in the order of their ids, and the ids that only one of them has."""

    pairs: Sequence[Pair]
    only_baseline: Sequence[str] = ()
    only_current: Sequence[str] = ()

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def labels(self) -> Ints:
        return np.array([pair.label for pair in self.pairs], dtype=np.int64)

    @property
    def sizes(self) -> Ints:
        """The number of tasks of each group."""
        sizes: Ints = np.bincount(self.labels)
        return sizes

    @property
    def works(self) -> int:
        """The number of pieces of work that the tasks are, whatever their groups."""
        return len(set(_labels([(pair.baseline.work, pair.current.work) for pair in self.pairs])))

    def by_role(self) -> dict[str | None, "Pairs"]:
        """The tasks of each job role, and those of none. What is one group stays one within each role."""
        parts: dict[str | None, list[Pair]] = defaultdict(list)
        labels: dict[str | None, dict[int, int]] = defaultdict(dict)
        for pair in self.pairs:
            role = pair.current.role
            label = labels[role].setdefault(pair.label, len(labels[role]))
            parts[role].append(replace(pair, label=label))
        return {role: Pairs(part) for role, part in parts.items()}

    def groups(self) -> Groups:
        sizes = self.sizes.tolist()
        sums = [Fraction(0)] * len(sizes)
        for pair in self.pairs:
            sums[pair.label] += pair.difference
        return Groups.of(sums, sizes)

    def rates(self, results: Sequence[TaskResult], counting: Counting) -> Floats:
        """For each group the sum of its tasks' shares that passed; `results` are one arm's, in our order."""
        shares = [float(result.share(counting)) for result in results]
        rates: Floats = np.bincount(self.labels, weights=shares).astype(np.float64)
        return rates

    @property
    def mcnemar_holds(self) -> bool:
        """Whether every task is a group of its own that was done once by both arms."""
        once = all(len(pair.baseline.outcomes) == len(pair.current.outcomes) == 1 for pair in self.pairs)
        return once and len(self.sizes) == len(self.pairs)


def paired(baseline: ArmResults, current: ArmResults, counting: Counting, independent: Unit) -> Pairs:
    """Tasks are of one group when either arm says so: the evidence may have grown between two replays.

    With `independent` as `work`, the pieces of work take the place of the groups.
    """
    both = sorted(baseline.results.keys() & current.results.keys())
    pairs = [(baseline.results[task_id], current.results[task_id]) for task_id in both]
    labels = _labels([(getattr(old, independent), getattr(new, independent)) for old, new in pairs])
    return Pairs(
        [
            Pair(old, new, label, new.share(counting) - old.share(counting))
            for (old, new), label in zip(pairs, labels, strict=True)
        ],
        sorted(baseline.results.keys() - current.results.keys()),
        sorted(current.results.keys() - baseline.results.keys()),
    )


def _labels(units: Sequence[tuple[str, str]]) -> list[int]:
    """Number the connected units, one of each arm for a task, in the order in which they are first met."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in units:
        parent[root(("current", other))] = root(("baseline", one))
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault(root(("baseline", one)), len(numbers)) for one, _ in units]
