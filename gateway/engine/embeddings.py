"""Embeddings over replicas: every text has its home, so that each replica's cache holds its own share."""

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.backends import HopReplica, Part, ReplicaLost
from gateway.engine.fleet import Standing
from gateway.engine.hold import Hold
from schemas.embeddings import EncodingFormat, InputType
from schemas.hop import Answered, Call, Refused
from services.errors import PlatformError, Unavailable
from services.http import BY_STATUS
from services.tasks import TaskSet

TRIES_MIN: Final = 3
MIX: Final = 0x9E3779B97F4A7C15
MASK: Final = (1 << 64) - 1
INDEX: Final = re.compile(r"\binput\.(\d+)")


class Wanted(NamedTuple):
    """What a caller wants, with the ids of the request."""

    request_id: str
    traceparent: str
    model: str
    texts: list[str]
    input_type: InputType | None
    truncate: bool
    dimensions: int | None
    encoding: EncodingFormat

    def call(self, call_id: int, texts: list[str] | None = None) -> Call:
        """A call for some of the texts, or all."""
        return Call(
            call_id,
            self.request_id,
            self.traceparent,
            self.model,
            self.input_type,
            self.truncate,
            self.dimensions,
            self.encoding,
            self.texts if texts is None else texts,
        )


class Vectors(NamedTuple):
    """Finished JSON texts of vectors, in the order of the texts, and what goes into the answer's head.

    `sent_s` is when their one home was asked, by `time.perf_counter`; 0 where there were several.
    """

    fragments: Sequence[bytes]
    digest: str
    hits: int
    misses: int
    tokens: int
    queue_ms: float
    inference_ms: float
    sent_s: float = 0.0


@dataclass(eq=False, slots=True)
class Member:
    """A replica in the rendezvous. `salt` gives it its place, `ejected_until` says when it counts again.

    One that is `silent` takes connections and gives no answer: it does not count until it does again.
    """

    replica: HopReplica
    salt: int
    ejected_until: float = 0.0
    silent: bool = False

    @property
    def peer(self) -> HopReplica:
        return self.replica


class Rendezvous:
    """The replicas of embedd. A text goes to the one that scores highest for it among those that work.

    When a replica leaves, only its own texts move; when it is back, they return to their warm home.
    """

    def __init__(
        self,
        replicas: Sequence[HopReplica],
        *,
        ejection_s: float,
        wait_s: float = 0.0,
        restart_s: float = 0.0,
        held_max: int = 0,
    ) -> None:
        """`wait_s`, `restart_s` and `held_max` are for the time that a restart takes: see `Hold`."""
        self._ejection_s = ejection_s
        self._hold = Hold(
            self.ping, silent=self._all_silent, wait_s=wait_s, restart_s=restart_s, held_max=held_max
        )
        self._tasks = TaskSet()
        self._members: list[Member] = []
        self.set_replicas(replicas)

    def set_replicas(self, replicas: Sequence[HopReplica]) -> None:
        """Replace the replicas. Those that stay keep their state; calls under way are not touched."""
        known = {member.replica.url: member for member in self._members}
        self._members = [
            known.get(replica.url) or Member(replica, zlib.crc32(replica.url.encode()) * MIX & MASK)
            for replica in replicas
        ]

    @property
    def replicas(self) -> Sequence[Member]:
        return self._members

    def silenced(self) -> None:
        """One of the replicas is silent from now on. With all of them so, nobody waits for a restart."""
        if self._all_silent():
            self._hold.give_up()

    def _all_silent(self) -> bool:
        return all(member.silent for member in self._members)

    def standings(self) -> list[Standing]:
        """How the replicas stand."""
        now = time.monotonic()
        return [
            Standing(
                member.replica.url, member.replica.in_flight, member.silent or member.ejected_until > now
            )
            for member in self._members
        ]

    def _home(self, text: str, members: Sequence[Member]) -> Member:
        if len(members) == 1:
            return members[0]
        hash_ = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        return max(members, key=lambda member: _score(hash_, member.salt))

    def _working(self, lost: set[Member]) -> list[Member]:
        now = time.monotonic()
        speaking = [member for member in self._members if not member.silent]
        left = ([member for member in speaking if member not in lost] or speaking) if lost else speaking
        # With every replica ejected the choice is between failing and trying: try.
        return [member for member in left if member.ejected_until <= now] or left

    def _shares(self, wanted: Wanted, places: Sequence[int], lost: set[Member]) -> dict[Member, list[int]]:
        members = self._working(lost)
        if not members:
            raise Unavailable("no replica of embedd answers", code="embedd_down")
        shares: dict[Member, list[int]] = {}
        for place in places:
            shares.setdefault(self._home(wanted.texts[place], members), []).append(place)
        return shares

    def start(self, wanted: Wanted, done: Callable[[Vectors | PlatformError], None]) -> Callable[[], None]:
        """Embed a caller's texts, and call `done` with the outcome. Returns what gives the work up.

        Texts that share a home, as a single one does, need no task: the outcome comes straight from the hop.
        """
        members = self._working(set())
        home = self._home(wanted.texts[0], members) if members else None
        if home is None or any(self._home(text, members) is not home for text in wanted.texts[1:]):
            return self._start_task(wanted, done, set())
        cancel: list[Callable[[], None]] = []

        def arrived(part: Part | ReplicaLost, sent_s: float) -> None:
            if isinstance(part, ReplicaLost):
                home.ejected_until = time.monotonic() + self._ejection_s
                cancel[0] = self._start_task(wanted, done, {home})
                return
            self._heard_from(home)
            done(_vectors(part, sent_s) if isinstance(part, Answered) else _refusal(part, None))

        try:
            cancel.append(home.replica.ask(wanted.call, arrived))
        except PlatformError as error:
            done(error)
        return lambda: cancel[0]() if cancel else None

    def _start_task(
        self, wanted: Wanted, done: Callable[[Vectors | PlatformError], None], lost: set[Member]
    ) -> Callable[[], None]:
        async def work() -> None:
            try:
                outcome: Vectors | PlatformError = await self.embed(wanted, lost)
            except PlatformError as error:
                outcome = error
            done(outcome)

        task = self._tasks.start(work(), name="embed over replicas")
        return lambda: None if task.done() else _cancel(task)

    async def embed(self, wanted: Wanted, lost: set[Member]) -> Vectors:
        """Embed a caller's texts, by replicas that are not `lost`.

        Raises embedd's own refusal, or `Unavailable` when no replica answers.
        """
        found: list[bytes | None] = [None] * len(wanted.texts)
        answers: list[Answered] = []
        places: Sequence[int] = range(len(wanted.texts))
        tries, turn = 0, self._hold.turn()
        while tries < max(TRIES_MIN, len(self._members) + 1) or await turn.back():
            tries += 1
            shares = self._shares(wanted, places, lost)
            parts = await asyncio.gather(*(self._ask(member, wanted, its) for member, its in shares.items()))
            places = []
            for (member, its), part in zip(shares.items(), parts, strict=True):
                if part is None:
                    lost.add(member)
                    places.extend(its)
                else:
                    _place(part, its, found, answers)
            if not places:
                return _merged([fragment for fragment in found if fragment is not None], answers)
        raise Unavailable("embedd's replicas failed one after the other", code="embedd_down")

    async def ping(self) -> None:
        """Raise, with the reason, unless a replica answers."""
        failure: Exception = Unavailable("embedd has no replica", code="embedd_down")
        for member in self._members:
            if member.silent:  # the watch asks it
                failure = Unavailable(f"{member.replica.url} gives no sign of life", code="embedd_down")
                continue
            try:
                await member.replica.ping()
            except (PlatformError, TimeoutError) as error:
                failure = error
            else:
                return
        raise failure

    async def close(self) -> None:
        """Give up what is under way."""
        await self._hold.close()
        await self._tasks.close()

    def _heard_from(self, member: Member) -> None:
        member.ejected_until = 0.0
        self._hold.heard()

    async def _ask(self, member: Member, wanted: Wanted, places: Sequence[int]) -> Part | None:
        """A replica's part, or None if the replica was lost: then it is passed over for a while."""
        texts = [wanted.texts[place] for place in places]
        arrival: asyncio.Future[Part | ReplicaLost] = asyncio.get_running_loop().create_future()

        def arrived(part: Part | ReplicaLost, _: float) -> None:
            arrival.set_result(part)

        cancel = member.replica.ask(lambda call_id: wanted.call(call_id, texts), arrived)
        try:
            part = await arrival
        finally:
            cancel()  # does nothing to one that is done
        if isinstance(part, ReplicaLost):
            member.ejected_until = time.monotonic() + self._ejection_s
            return None
        self._heard_from(member)
        return part


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _score(hash_: int, salt: int) -> int:
    mixed = (hash_ ^ salt) * MIX & MASK
    return (mixed ^ (mixed >> 29)) * MIX & MASK


def _place(part: Part, places: Sequence[int], found: list[bytes | None], answers: list[Answered]) -> None:
    if isinstance(part, Refused):
        raise _refusal(part, places)
    for place, fragment in zip(places, part.fragments, strict=True):
        found[place] = fragment
    answers.append(part)


def _refusal(part: Refused, places: Sequence[int] | None) -> PlatformError:
    """The replica's refusal, with the indexes of the texts as the caller numbers them."""

    def renumbered(text: str) -> str:
        return text if places is None else INDEX.sub(lambda match: f"input.{places[int(match[1])]}", text)

    error = part.error
    kind = BY_STATUS.get(part.status, PlatformError)
    return kind(
        renumbered(error.message),
        code=error.code,
        param=renumbered(error.param) if error.param is not None else None,
        retry_after_s=part.retry_after_s,
    )


def _vectors(part: Answered, sent_s: float) -> Vectors:
    return Vectors(
        part.fragments,
        part.digest,
        part.hits,
        part.misses,
        sum(part.tokens),
        part.queue_ms,
        part.inference_ms,
        sent_s,
    )


def _merged(fragments: list[bytes], answers: Sequence[Answered]) -> Vectors:
    digests = {answer.digest for answer in answers}
    if len(digests) != 1:
        raise Unavailable(
            "the replicas of embedd have different models of that name; retry", code="model_changed"
        )
    return Vectors(
        fragments,
        answers[0].digest,
        sum(answer.hits for answer in answers),
        sum(answer.misses for answer in answers),
        sum(sum(answer.tokens) for answer in answers),
        max(answer.queue_ms for answer in answers),
        max(answer.inference_ms for answer in answers),
    )
