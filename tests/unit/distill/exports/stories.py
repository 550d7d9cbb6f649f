"""What the stories about exports share: records, and the way from the log to a dataset's files."""

import random
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.unit.distill.builders import Json, done, episode, run, send, verdict, verdict_record

TOOL_CALL: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SPLITS = ("train", "validation", "holdout")


def mixed() -> list[Json]:
    return [
        *episode("o1"),
        *episode("o2", code="fill.role_mismatch"),
        run("plain", verdict=verdict()),
        run("unjudged"),
        run("silent", output=None),
        run("later"),
        verdict_record("later", "rejected", "fill.underage", ts="2026-11-02T10:00:01Z"),
        verdict_record("later", "accepted", ts="2026-11-02T10:00:02Z"),
    ]


def unlike(number: int) -> Json:
    """An accepted run that has no words in common with those of other numbers."""
    letters = random.Random(number)

    def words() -> str:
        return " ".join("".join(letters.choices("abcdefghijklmnopqrst", k=8)) for _ in range(20))

    return run(f"v{number}", question=words(), answer=words(), verdict=verdict())


def various(count: int) -> list[Json]:
    return [unlike(number) for number in range(count)]


async def exported(client: httpx.AsyncClient, records: list[Json], **request: Any) -> Json:
    """Send records and run all stages; return the export's job."""
    await send(client, records)
    await done(client, stage="materialize")
    await done(client, stage="score")
    return await done(client, stage="export", **request)


async def file_of(client: httpx.AsyncClient, job: Json, name: str) -> bytes:
    response = await client.get(f"/v1/distill/datasets/{job['dataset_id']}/files/{name}")
    assert response.status_code == 200, response.text
    return response.content


async def lines_of(client: httpx.AsyncClient, job: Json, name: str) -> list[Json]:
    return [orjson.loads(line) for line in (await file_of(client, job, name)).splitlines()]


async def rows_of(client: httpx.AsyncClient, job: Json) -> list[Json]:
    """The rows of all splits."""
    return [row for split in SPLITS for row in await lines_of(client, job, f"{split}.jsonl")]


async def provenance_of(client: httpx.AsyncClient, job: Json) -> list[Json]:
    return [row for split in SPLITS for row in await lines_of(client, job, f"{split}.provenance.jsonl")]


async def left_out_of(client: httpx.AsyncClient, job: Json) -> list[Json]:
    return await lines_of(client, job, "quarantine.jsonl")


def folder_of(data: Path, job: Json) -> Path:
    return data / "datasets" / str(job["dataset_id"])
