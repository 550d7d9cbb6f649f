"""A whole world: every part made from one spec."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from schemas.artifacts import JobOrder
from stillhouse.world.messages import drafts
from stillhouse.world.orders import job_orders
from stillhouse.world.playbooks import notes
from stillhouse.world.records import Message, Note, Scenario, Spec
from stillhouse.world.roster import Roster
from stillhouse.world.scenario import Cast


@dataclass(frozen=True)
class World:
    """A staffing agency's data. Parts are made when first asked for, so a reader pays for what it reads."""

    spec: Spec

    def roster(self) -> Iterator[pa.RecordBatch]:
        """All workers in the order of their ids, in batches of bounded size."""
        for number in range(self._roster.batches):
            yield self._batch(number)

    @cached_property
    def orders(self) -> tuple[JobOrder, ...]:
        """Open job orders; the first is the demo's."""
        return job_orders(self.spec)

    @cached_property
    def playbooks(self) -> tuple[Note, ...]:
        """Notes on past fills, of every role."""
        return notes(self.spec)

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Drafts to the first batch's workers, good and bad by turns."""
        return drafts(self.spec, self._batch(0))

    @cached_property
    def demo(self) -> Scenario:
        """The demo's order with workers who may fill it and workers who may not."""
        return self._cast.scenario

    @cached_property
    def _roster(self) -> Roster:
        return Roster(self.spec)

    @cached_property
    def _cast(self) -> Cast:
        return Cast(self.spec)

    def _batch(self, number: int) -> pa.RecordBatch:
        return self._cast.place(self._roster.batch(number), number)


def generate(spec: Spec) -> World:
    """The world of a spec. Equal specs give equal worlds, in any process and on any day."""
    return World(spec)
