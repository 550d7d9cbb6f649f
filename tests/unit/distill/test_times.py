"""Times of records: every form that their schema takes is read, and microseconds lose nothing."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.engine import times
from tests.unit.distill.builders import distill, done, run, send, verdict
from tests.unit.distill.exports.stories import exported, rows_of

ODD = "2026-11-02t11:30:00.250z"
"""RFC 3339 lets both letters be small."""


@pytest.mark.parametrize("text", [ODD, "2026-11-02T11:30:00.25Z", "2026-11-02T13:00:00.250000+01:30"])
def test_every_form_of_a_time_is_read(text: str) -> None:
    assert times.read(text) == datetime(2026, 11, 2, 11, 30, 0, 250_000, UTC)
    assert times.moment(text) == 1_793_619_000_250_000


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 - the zone is drawn
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001 - the same
        timezones=st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-1439, 1439)),
    )
)
def test_microseconds_are_the_time_itself(when: datetime) -> None:
    assert times.time_at(times.microseconds(when)) == when
    assert times.moment(when.isoformat()) == times.microseconds(when)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_utc_has_no_year_for_is_the_nearest_it_has(text: str) -> None:
    assert times.time_at(times.moment(text)).year == times.read(text).year


@pytest.mark.anyio
async def test_windows_are_compared_whatever_the_times_in_them(tmp_path: Path) -> None:
    odd = ("0001-01-01T00:00:00+23:59", ODD, "9999-12-31T23:59:59-23:59")
    async with distill(tmp_path) as client:
        await send(client, [run(f"r{number}", ts=ts) for number, ts in enumerate(odd)])
        await done(client, stage="materialize")
        await done(client, stage="score")
        assert (await done(client, stage="drift"))["counts"]["in"] == len(odd)


@pytest.mark.anyio
async def test_a_run_with_such_a_time_is_exported_like_others(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        job = await exported(client, [run("r", ts=ODD, verdict=verdict())], kind="sft")
        assert len(await rows_of(client, job)) == 1
