"""A real distill that is killed at random moments, and what must be true of its files afterwards."""

import contextlib
import hashlib
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import orjson
import psutil

from distill.engine import keys
from tests.processes import Running, running
from tests.unit.distill.builders import Json, episode, ndjson, run, verdict, verdict_record

SETTINGS: Final = {
    "DISTILL_DISK_FREE_BYTES_MIN": "0",
    "DISTILL_SEGMENT_BYTES_MAX": str(
        96 * 1024
    ),  # many segments, so that a stage has many files to leave half done
}
IN_PROCESSES: Final = {**SETTINGS, "DISTILL_INLINE_BYTES_MAX": "0", "DISTILL_PROCESSES": "2"}
"""The same, with the stages' work in processes of their own however little there is."""
STAGES: Final[tuple[Json, ...]] = (
    {"stage": "materialize"},
    {"stage": "score"},
    {"stage": "export", "kind": "sft", "target": "openai"},
    {"stage": "export", "kind": "preference", "target": "openai"},
    {"stage": "export", "kind": "rag"},
)
NOT_PRODUCTS: Final = ("receipts", "keys", "index", "holdout")
PATIENCE_S: Final = 60.0
WRITERS: Final = 4


# --- what is sent -------------------------------------------------------------------------------


def records(name: str, number: int) -> list[Json]:
    """Runs of every kind of fate: accepted, repaired, rejected, never judged; and what was said of them."""
    key = f"{name}-{number}"
    text = f"fill order {number} of {name} with people who are near and free that week"
    return [
        run(f"{key}-a", question=text, answer=f"{key}: workers 1, 2 and 3", verdict=verdict()),
        run(f"{key}-b", question=f"{text}, again", answer=f"{key}: worker 4"),
        verdict_record(f"{key}-b", "rejected" if number % 3 else "accepted", "fill.underage"),
        run(f"{key}-c", question=f"{text}, once more", answer=f"{key}: none"),
        *episode(f"{key}-e"),
    ]


def runs_in(batch: list[Json]) -> list[str]:
    return [str(one["run_id"]) for one in batch if one["schema"] == "stillhouse.run"]


def post(client: httpx.Client, batch: list[Json]) -> bool:
    """Whether all of it was acknowledged."""
    response = client.post(
        "/v1/runs", content=ndjson(batch), headers={"content-type": "application/x-ndjson"}
    )
    return response.status_code == 200 and response.json()["accepted"] == len(batch)


# --- the process --------------------------------------------------------------------------------


def kill(distill: Running, *, family: bool) -> list[psutil.Process]:
    """SIGKILL to distill, and to its children too if `family`. Returns the children that are left."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(distill.process.pid).children(recursive=True)
        distill.kill()
        if not family:
            return children
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    return []


def wait_until_gone(orphans: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(orphans, timeout=PATIENCE_S)
    assert alive == [], "processes of a killed distill live on"


def finished(client: httpx.Client, stage: Json) -> Json:
    """Run a stage to its end."""
    answer = client.post("/v1/distill/jobs", json=stage)
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job: Json = client.get(f"/v1/distill/jobs/{answer.json()['job_id']}").json()
        if job["state"] in {"done", "failed"}:
            assert job["state"] == "done", (stage, job)
            return job
        time.sleep(0.01)
    raise AssertionError(f"{stage} did not end")


@contextlib.contextmanager
def client_of(distill: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=distill.url, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


# --- what is on the disk ------------------------------------------------------------------------


def digests(data: Path) -> dict[str, str]:
    """The sha256 of every product. Receipts tell of times, and so are none."""
    found = {}
    for folder in (data / "distill", data / "datasets"):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(data)
            if not path.is_file() or path.name == "receipt.dsse.json" or path.suffix == ".tmp":
                continue
            if any(part.startswith(".") for part in name.parts) or name.parts[1] in NOT_PRODUCTS:
                continue
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def written(data: Path) -> Counter[str]:
    """How often each run is in the log."""
    lines = (line for path in (data / "log").glob("runs-*.jsonl") for line in path.read_bytes().splitlines())
    return Counter(
        record["run_id"] for record in map(orjson.loads, lines) if record["schema"] == "stillhouse.run"
    )


def undisturbed(data: Path, folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """The products that the same log gives when nothing happens, and the seconds that each stage took."""
    copy = folder / "data"
    shutil.copytree(data / "log", copy / "log", ignore=shutil.ignore_patterns(".lock"))
    shutil.copytree(data / keys.FOLDER, copy / keys.FOLDER)
    took = {}
    with running("distill", folder, env=SETTINGS) as distill, client_of(distill) as client:
        for stage in STAGES:
            start = time.monotonic()
            finished(client, stage)
            took[name_of(stage)] = time.monotonic() - start
    return digests(copy), took


def made_of_log(found: dict[str, str]) -> dict[str, str]:
    return {name: sha256 for name, sha256 in found.items() if name.startswith("distill/")}


def name_of(stage: Json) -> str:
    return " ".join(str(value) for value in stage.values())


def remove_products(data: Path) -> None:
    """Leave the log with its index, the key, the receipts and what was held out."""
    shutil.rmtree(data / "datasets", ignore_errors=True)
    for path in (data / "distill").rglob("*"):
        name = path.relative_to(data / "distill")
        kept = name.parts[0] in ("keys", "receipts", "holdout") or name.name.startswith("log-")
        if path.is_file() and not kept:
            path.unlink()


# --- stories ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What happened, for whoever reads the test's output."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)


def write_until_dead(url: str, name: str, tally: Tally) -> None:
    """Send batches, each again until it is acknowledged; note what was."""
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        for number in range(100_000):
            batch = records(name, number)
            try:
                if post(client, batch):
                    tally.acknowledged += runs_in(batch)
            except httpx.TransportError:
                return


def work_until_dead(url: str) -> None:
    """One stage after the other, as fast as they come; some fail while there is nothing to work on."""
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client,
        contextlib.suppress(httpx.TransportError, KeyError),
    ):
        while True:
            for stage in STAGES:
                job_id = client.post("/v1/distill/jobs", json=stage).json()["job_id"]
                while client.get(f"/v1/distill/jobs/{job_id}").json()["state"] not in {"done", "failed"}:
                    time.sleep(0.01)


def kill_under_write(folder: Path, rounds: int, chance: random.Random) -> Tally:
    """Writers and stages at once, killed `rounds` times."""
    tally = Tally()
    for life in range(rounds):
        with running("distill", folder, env=chance.choice((SETTINGS, IN_PROCESSES))) as distill:
            if tally.acknowledged:  # the one that saw no answer sends again, and so may one that did
                with client_of(distill) as client:
                    for run_id in tally.acknowledged[-5:]:
                        assert client.get(f"/v1/runs/{run_id}").status_code == 200, run_id
            threads = [
                threading.Thread(target=write_until_dead, args=(distill.url, f"{life}-{number}", tally))
                for number in range(WRITERS)
            ]
            if life % 2:
                threads.append(threading.Thread(target=work_until_dead, args=(distill.url,)))
            for thread in threads:
                thread.start()
            before = len(tally.acknowledged)
            while len(tally.acknowledged) == before:
                assert distill.process.poll() is None, distill.text()
                time.sleep(0.005)
            time.sleep(chance.random() * 0.5)
            orphans = kill(distill, family=chance.random() < 0.5)
            for thread in threads:
                thread.join(PATIENCE_S)
            wait_until_gone(orphans)
            tally.kills["write and stages" if life % 2 else "write"] += 1
    return tally


def fill(folder: Path, batches: int, *, stages: bool) -> None:
    """A log, and the key, made in peace; and every stage once, if asked for."""
    data = folder / "data"
    if not keys.private_path(data).exists():
        keys.generate(data)
    with running("distill", folder, env=SETTINGS) as distill, client_of(distill) as client:
        for number in range(batches):
            assert post(client, records("fixed", number))
        for number in range(0, batches, 7):
            said = {
                "run_id": f"fixed-{number}-a",
                "kind": "boolean",
                "value": number % 2 == 0,
                "by": "somebody",
            }
            assert client.post("/v1/feedback", json=said).status_code == 200
        for stage in STAGES if stages else ():
            finished(client, stage)
        assert distill.stop() == 0


def kill_under_stages(
    folder: Path, rounds: int, chance: random.Random, expected: dict[str, str], took: dict[str, float]
) -> Tally:
    """Kill under each stage in turn; every new life must come to the products of the undisturbed run."""
    tally, data = Tally(), folder / "data"
    for life in range(rounds):
        stage = STAGES[life % len(STAGES)]
        settings = chance.choice((SETTINGS, IN_PROCESSES))
        with running("distill", folder, env=settings) as distill, client_of(distill) as client:
            if life:
                _come_to(expected, data, client)
            if chance.random() < 0.7:  # else there is nothing new to do, and that is a moment too
                remove_products(data)
            for earlier in STAGES[: STAGES.index(stage)]:
                if earlier["stage"] != "export":
                    finished(client, earlier)
            assert client.post("/v1/distill/jobs", json=stage).status_code == 202
            time.sleep(chance.random() * took[name_of(stage)] * 1.1)
            orphans = kill(distill, family=chance.random() < 0.5)
            wait_until_gone(orphans)
            tally.kills[name_of(stage)] += 1
    with running("distill", folder, env=SETTINGS) as distill, client_of(distill) as client:
        _come_to(expected, data, client)
        assert distill.stop() == 0
    return tally


def _come_to(expected: dict[str, str], data: Path, client: httpx.Client) -> None:
    for stage in STAGES:
        finished(client, stage)
    found = digests(data)
    assert found == expected, {
        name: (found.get(name), expected.get(name))
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    }
