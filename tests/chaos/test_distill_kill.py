"""distill killed with SIGKILL at random moments: nothing acknowledged is lost, products are what they were.

`CHAOS_ROUNDS` says how often (100), `CHAOS_SEED` when.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import kills
from tests.processes import ROOT

pytestmark = [pytest.mark.enable_socket]

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "100"))
ROUNDS_IN_CI = 2
SEED = int(os.environ.get("CHAOS_SEED", "5"))


def audit(data: Path) -> None:
    """As an auditor does it: nothing runs, every link is followed, and the evidence is made anew."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "distill", "audit", "--data", str(data), "--all", "--rebuild"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[:5000].decode()


def under_write(folder: Path, rounds: int) -> None:
    data = folder / "data"
    tally = kills.kill_under_write(folder, rounds, random.Random(SEED))
    written = kills.written(data)
    lost = set(tally.acknowledged) - set(written)
    twice = [run_id for run_id, count in written.items() if count > 1]
    assert (lost, twice) == (set(), [])
    kills.fill(folder, 1, stages=True)  # a last life, in peace
    expected, _ = kills.undisturbed(data, folder / "undisturbed")
    # Only what a pure function of the log makes: exports also know what earlier ones have held out.
    assert kills.made_of_log(kills.digests(data)) == kills.made_of_log(expected)
    audit(data)
    print(f"{dict(tally.kills)}: {len(tally.acknowledged)} acknowledged runs, 0 lost, 0 doubled")


def under_stages(folder: Path, rounds: int, batches: int) -> None:
    data = folder / "data"
    kills.fill(folder, batches, stages=False)
    expected, took = kills.undisturbed(data, folder / "undisturbed")
    assert expected
    tally = kills.kill_under_stages(folder, rounds, random.Random(SEED), expected, took)
    audit(data)
    print(f"{dict(tally.kills)}: {len(expected)} products, all as in the undisturbed run")


def test_a_few_kills_under_write(tmp_path: Path) -> None:
    under_write(tmp_path, ROUNDS_IN_CI)


def test_a_few_kills_under_stages(tmp_path: Path) -> None:
    under_stages(tmp_path, ROUNDS_IN_CI, batches=40)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_kills_under_write(tmp_path: Path) -> None:
    under_write(tmp_path, ROUNDS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_kills_under_every_stage(tmp_path: Path) -> None:
    under_stages(tmp_path, ROUNDS, batches=150)
