"""Half of what the platform can do, for long: memory, files and threads stay where they are, nothing fails.

`STEADY_S` says for how many seconds; the bar is meant for 1200.
"""

import os
import re
import statistics
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import pytest

from tests.bench.house import MEGABYTE
from tests.chaos.town import TIMEOUT_S, Place, Town, town
from tests.chaos.traffic import Traffic, told

STEADY_S = float(os.environ.get("STEADY_S", "120"))

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(STEADY_S + 300)]

PEAK_S = 6.0
PEAK_CALLERS = 32
SHARE = 0.5
POINTS_MAX = 1000
INTERVAL_S = 5.0
SLOPE_MB_A_MINUTE_MAX = 2.0 if STEADY_S >= 600 else 8.0
"""Half of two minutes is too short a time to tell an allocator's steps from a slope."""
FILES_MORE_MAX = 40
"""Connections come and go with the moment's load; a leak at hundreds of requests a second is far more."""
THREADS_MORE_MAX = 4
TASKS_MORE_MAX = 40
TASKS = re.compile(r"^event_loop_tasks (\S+)$", re.MULTILINE)
SMALL = {"EMBEDD_CACHE_BYTES_MAX": str(4 * MEGABYTE), "EMBEDD_FRAGMENT_BYTES_MAX": str(4 * MEGABYTE)}


class Look(NamedTuple):
    """At one daemon, its workers included; the tasks are those of its own event loop."""

    seconds: float
    rss: int
    files: int
    threads: int
    tasks: int

    @classmethod
    def at(cls, place: Place, seconds: float) -> Self:
        everybody = [place.process, *place.process.children(recursive=True)]
        metrics = httpx.get(f"{place.url}/metrics", trust_env=False, timeout=TIMEOUT_S).text
        tasks = TASKS.search(metrics)
        assert tasks is not None, metrics
        return cls(
            seconds,
            sum(each.memory_info().rss for each in everybody),
            sum(each.num_fds() for each in everybody),
            sum(each.num_threads() for each in everybody),
            int(float(tasks[1])),
        )


class Watch:
    """Notes memory, open files, threads and tasks of daemons from a thread of its own."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks: dict[str, list[Look]] = {name: [] for name in places}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            for name, place in self._places.items():
                self.looks[name].append(Look.at(place, time.monotonic() - self._started))


class Growth(NamedTuple):
    """Of the second half of the time: memory and its slope, and what there was beyond the first half."""

    mb: float
    mb_a_minute: float
    files: int
    threads: int
    tasks: int

    @classmethod
    def of(cls, looks: list[Look]) -> "Growth":
        first, second = looks[: len(looks) // 2], looks[len(looks) // 2 :]
        points = [(look.seconds / 60, look.rss / MEGABYTE) for look in second]
        return cls(
            second[-1].rss / MEGABYTE,
            statistics.linear_regression(*zip(*points, strict=True)).slope,
            max(look.files for look in second) - max(look.files for look in first),
            max(look.threads for look in second) - max(look.threads for look in first),
            max(look.tasks for look in second) - max(look.tasks for look in first),
        )


def peak(one: Town) -> float:
    """Requests a second that callers who never rest get answered."""
    with Traffic(one, rate=None, callers=PEAK_CALLERS, points_max=POINTS_MAX) as traffic:
        time.sleep(PEAK_S)
    assert all(each.ok for each in traffic.outcomes), told(each for each in traffic.outcomes if not each.ok)
    return len(traffic.outcomes) / PEAK_S


def test_at_half_of_the_peak_nothing_grows(tmp_path: Path) -> None:
    with town(tmp_path, env=SMALL) as one:
        one.prepare()
        rate = SHARE * peak(one)
        places = {name: group[0] for name, group in one.places.items()}
        with Traffic(one, rate=rate, points_max=POINTS_MAX) as traffic, Watch(places) as watch:
            time.sleep(STEADY_S)
    failed = [each for each in traffic.outcomes if not each.ok]
    grown = {name: Growth.of(looks) for name, looks in watch.looks.items()}
    print(f"\n{len(traffic.outcomes):,} requests at {rate:.0f}/s in {STEADY_S:g} s, {len(failed)} failed")
    for name, each in grown.items():
        print(
            f"{name}: {each.mb:.0f} MB, {each.mb_a_minute:+.2f} MB a minute,"
            f" files {each.files:+d}, threads {each.threads:+d}, tasks {each.tasks:+d}"
        )
    assert not failed, told(failed)
    assert not traffic.unsent
    assert max(each.mb_a_minute for each in grown.values()) <= SLOPE_MB_A_MINUTE_MAX
    assert max(each.files for each in grown.values()) <= FILES_MORE_MAX
    assert max(each.threads for each in grown.values()) <= THREADS_MORE_MAX
    assert max(each.tasks for each in grown.values()) <= TASKS_MORE_MAX
