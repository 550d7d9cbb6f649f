"""Makes runs as an agency's log has them: seeded, about 1.5 KB each, with episodes, verdicts and feedback."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from schemas.canonical import canonical_bytes
from tests.unit.distill.vouched import seal

Json = dict[str, Any]

START = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
CITIES = ("Dayton", "Toledo", "Akron", "Lima", "Canton", "Parma", "Lorain", "Kent", "Xenia", "Troy")
ROLES = ("forklift operator", "picker", "packer", "welder", "line cook", "cleaner", "driver", "machinist")
CODES = ("fill.underage", "fill.role_mismatch", "fill.cert_missing", "fill.double_booked")
WORDS = (
    *("shift", "dock", "order", "crew", "badge", "gate", "pallet", "label", "count", "night", "early"),
    *("truck", "scanner", "aisle", "safety", "vest", "boots", "report", "break", "lead", "check", "load"),
    *("invoice", "carton", "freight", "ramp", "clock", "board", "route", "zone", "lift", "chain", "rack"),
)
SYSTEM = (
    "You place workers on orders of an agency. Use only the notes that are given. Answer with JSON that names"
    " the order and the workers, and nothing else. Never place anybody whose certificate has run out."
)


def _verdict(name: str, *codes: str) -> Json:
    return {
        "ok": name == "accepted",
        "verdict": name,
        "findings": [
            {"code": code, "severity": "error", "path": "/fills/0", "message": "does not fit"}
            for code in codes
        ],
        "kind": "fill",
        "validator": {"name": "fill", "version": "1.0", "policy_version": "1"},
        "elapsed_ms": 1.25,
    }


class Maker:
    """Records of a log in the order in which they arrive. The same seed gives the same records."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._number = 0

    def records(self, runs: int) -> Iterator[Json]:
        """This many runs, and what is said of them. A tenth are repairs of a draft just before."""
        until = self._number + runs
        while self._number < until:
            kind = self._random.random()
            episode = f"ep-{self._number:09d}"
            if kind < 0.1 and self._number + 2 <= until:
                code = self._random.choice(CODES)
                draft = self._run(episode, _verdict("rejected", code))
                yield draft
                repair = self._run(episode, _verdict("accepted"))
                repair["task"] = draft["task"]
                repair["request"]["messages"] = [
                    *draft["request"]["messages"],
                    {"role": "assistant", "content": draft["output"]["content"]},
                    {"role": "user", "content": f"{code}: name somebody else"},
                ]
                repair["ext"] = {"attempt": 2, "repair_of_run_id": draft["run_id"]}
                yield repair
            elif kind < 0.2:  # the verdict comes apart from the run
                run = self._run(episode, None)
                yield run
                yield self._said("verdict", run["run_id"], verdict=_verdict("accepted"))
            else:
                name = "accepted" if kind < 0.85 else "needs_human_review" if kind < 0.9 else "rejected"
                codes = (self._random.choice(CODES),) if name == "rejected" else ()
                run = self._run(episode, _verdict(name, *codes))
                yield run
                if kind > 0.97:
                    feedback = {"kind": "boolean", "value": kind > 0.98, "by": "planner", "name": None}
                    feedback["feedback_id"] = f"fb-{run['run_id']}"
                    yield self._said("feedback", run["run_id"], **feedback)

    def _said(self, what: str, run_id: str, **fields: Any) -> Json:
        return {
            "schema": f"stillhouse.{what}",
            "schema_version": "1.0",
            "run_id": run_id,
            "ts": self._time(self._number),
            **fields,
        }

    def _time(self, number: int) -> str:
        return (START + timedelta(seconds=number, milliseconds=125)).isoformat().replace("+00:00", "Z")

    def _run(self, episode: str, verdict: Json | None) -> Json:
        number, pick = self._number, self._random
        self._number += 1
        order, city, role = f"JO-{number:07d}", pick.choice(CITIES), pick.choice(ROLES)
        note = " ".join(pick.choices(WORDS, k=25))
        asked = (
            f"Order {order}: {pick.randint(1, 9)} × {role} in {city}, from 0{pick.randint(5, 9)}:00."
            f" {' '.join(pick.choices(WORDS, k=15))}."
        )
        worker = f"W{pick.randint(0, 99_999):05d}"
        fills = [{"worker_id": worker, "name": f"{pick.choice(CITIES)} {pick.choice(WORDS).title()}"}]
        answer = orjson.dumps({"order_id": order, "fills": fills, "note": " ".join(pick.choices(WORDS, k=6))})
        return {
            "schema": "stillhouse.run",
            "schema_version": "1.0",
            "run_id": f"run-{number:010d}",
            "episode_id": episode,
            "ts": self._time(number),
            "principal": "agency",
            "task": {"kind": "fill", "key": order},
            "request": {
                "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}],
                "tools": None,
                "params": {"temperature": 0.2, "max_tokens": 400},
            },
            "retrieved_context": [
                {
                    "collection": "notes",
                    "id": number % 5000,
                    "role": role,
                    "score": round(pick.random(), 4),
                    "text": note,
                    "text_sha256": f"{pick.getrandbits(256):064x}",
                }
            ],
            "model": {"provider": "ollama", "name": "llama3.2", "digest": "sha256:dde5aa3fc5ff"},
            "attempts": [
                {"provider": "ollama", "model": "llama3.2", "status": "ok", "code": None, "latency_ms": 410.5}
            ],
            "output": {"content": answer.decode(), "tool_calls": None, "finish_reason": "stop"},
            "usage": {
                "prompt_tokens": pick.randint(150, 400),
                "completion_tokens": pick.randint(20, 90),
                "cost_usd": None,
            },
            "latency_ms": round(pick.uniform(200, 900), 1),
            "ttft_ms": None,
            "verdict": verdict,
            "config_hash": "c0ffee",
        }


def as_text(record: Json, run_id: str) -> str:
    """A run under another id, as a line."""
    return orjson.dumps({**record, "run_id": f"run-{run_id}"}).decode() + "\n"


def write_log(
    maker: Maker, folder: Path, runs: int, *, first: int = 1, segment_bytes: int = 256 << 20
) -> int:
    """Write runs into segments of a log as `distill` would leave them; returns the last one's number.

    All but the last are sealed. `first` is the number of the first segment that is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number, size = first, 0
    path = folder / f"runs-{number:06d}.jsonl"
    file = path.open("wb")
    for record in maker.records(runs):
        line = canonical_bytes(record) + b"\n"
        if size + len(line) > segment_bytes:
            file.close()
            seal(path)
            number, size = number + 1, 0
            path = folder / f"runs-{number:06d}.jsonl"
            file = path.open("wb")
        file.write(line)
        size += len(line)
    file.close()
    return number
