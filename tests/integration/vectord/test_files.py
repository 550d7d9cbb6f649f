"""Collections through files: exported, imported, snapshot and restored by the commands, on a real vectord."""

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from services.testing import free_port
from stillhouse.cli import Commands
from stillhouse.commands import vector_files
from tests.processes import running

pytestmark = pytest.mark.enable_socket

POINTS: list[dict[str, Any]] = [
    {
        "id": number if number % 3 else f"id {number}",
        "vector": [1.5, number / 7, -number / 3],
        "role": "nurse" if number % 2 else "welder",
        "payload": {"n": number, "tags": ["a", {"b": None}]},
        **({"text": f"text ü {number}"} if number % 5 else {}),
    }
    for number in range(1, 1201)
]


def call(*args: object, ok: bool = True) -> Result:
    app = typer.Typer(cls=Commands)
    vector_files.register(app)
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert (done.exit_code == 0) is ok, (done.output, done.exception)
    return done


def everything(http: httpx.Client, name: str) -> list[Any]:
    found: list[Any] = []
    cursor: str | None = None
    while True:
        body: dict[str, Any] = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
        page = http.post(f"/v1/collections/{name}/points/export", json=body).json()
        found += page["points"]
        cursor = page.get("cursor")
        if cursor is None:
            return found


def test_a_collection_goes_through_files_and_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}", "VECTORD_WORKERS": "1"}
    with (
        running("vectord", tmp_path, env=env) as vectord,
        httpx.Client(base_url=vectord.url, timeout=60, trust_env=False) as http,
    ):
        monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", vectord.url)  # its routes are vectord's own
        spec = {"dimension": 3, "distance": "euclid", "gated": True, "payload_indexes": {"n": "integer"}}
        assert http.put("/v1/collections/c", json=spec).status_code == 200
        for start in range(0, len(POINTS), 400):
            answer = http.put("/v1/collections/c/points", json={"points": POINTS[start : start + 400]})
            assert answer.status_code == 200, answer.text
        before = everything(http, "c")
        assert len(before) == len(POINTS)

        parquet = tmp_path / "c.parquet"
        assert json.loads(call("export", "c", parquet, "--json").stdout)["points"] == len(POINTS)
        table = pq.read_table(parquet)
        assert table.num_rows == len(POINTS)
        assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
        call("import", "copy", parquet)
        assert everything(http, "copy") == before
        described = http.get("/v1/collections/copy").json()
        assert {key: described[key] for key in spec} == spec

        archive = tmp_path / "c.zip"
        made = json.loads(call("snapshot", "c", "--to", archive, "--json").stdout)
        assert archive.stat().st_size == made["bytes"]
        call("restore", "back", archive)
        assert everything(http, "back") == before
        assert http.get("/v1/collections/back/snapshots").json()["snapshots"] == []
        assert "exists" in call("restore", "c", "--snapshot", made["name"], ok=False).output

        foreign = tmp_path / "foreign.parquet"
        columns = {"id": [1, 2], "vector": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "role": ["cook", "cook"]}
        pq.write_table(pa.table(columns), foreign)
        assert "no collection" in call("import", "new", foreign, ok=False).output
        call("import", "copy", foreign)
        body = {"vector": [4.0, 5.0, 6.0], "role": "cook", "k": 1}
        hits = http.post("/v1/collections/copy/search", json=body).json()["hits"]
        assert [hit["id"] for hit in hits] == [2]

        for bad, said in ((b"no parquet", "cannot be read"), (None, "cannot be read")):
            path = tmp_path / "bad.parquet"
            path.unlink(missing_ok=True)
            if bad is not None:
                path.write_bytes(bad)
            assert said in call("import", "copy", path, ok=False).output
        assert "no collection" in call("export", "unknown", tmp_path / "x.parquet", ok=False).output
        assert not list(tmp_path.glob("*x.parquet*"))
        assert not list(tmp_path.glob(".*.part"))
