"""`stillhouse vector bench`: what it asks, what it shows, draws and chooses."""

import base64
import json
import struct
import xml.etree.ElementTree as ET  # what is read was written by us a moment before
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from stillhouse.commands.vector_sources import Unreadable, glove, wordnet
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

TIMES = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "mean_ms": 1.2, "queries_per_s": 800.0}


def measured(ef: int, recall: float, target: float | None = None) -> tuple[int, dict[str, Any]]:
    setting = {"ef": ef, "recall": recall, **TIMES}
    return 200, {
        "collection": "c", "engine": "edge", "points": 1000, "dimension": 4, "selectivity": 1.0,
        "queries": 200, "k": 10, "concurrency": 1, "settings": [setting], "exact": TIMES,
        "best": setting if target is not None and recall >= target else None, "ef": 256,
        "build_s": 1.5, "rss_bytes": 1_000_000, "disk_bytes": 2_000_000,
    }  # fmt: skip


def efs(gateway: StubGateway) -> list[int]:
    return [body["sweep"]["ef"][0] for _, path, _, body in gateway.requests if path.endswith("/benchmark")]


def test_it_stops_at_the_target_and_applies_it(run: Run, gateway: StubGateway, tmp_path: Path) -> None:
    gateway.answers["POST /v1/collections/c/benchmark"] = [
        measured(16, 0.8, 0.99),
        measured(32, 0.95, 0.99),
        measured(64, 0.995, 0.99),
    ]
    drawing = tmp_path / "c.svg"
    result = run("vector", "bench", "c", "--target-recall", "0.99", "--apply", "--plot", str(drawing))
    assert result.exit_code == 0, result.output
    assert "recall of 0.99: ef 64" in result.stdout
    assert efs(gateway) == [16, 32, 64, 64]
    assert [body.get("apply") for *_, body in gateway.requests] == [False, False, False, True]
    dots = ET.parse(drawing).getroot().findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 3


def test_a_target_out_of_reach_is_a_failed_check(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/collections/c/benchmark"] = [measured(16, 0.8)]
    result = run("vector", "bench", "c", "--target-recall", "0.99", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["best"] is None
    assert len(told["settings"]) == len(efs(gateway)) > 5
    assert told["machine"]["processors"] >= 1


def test_one_thing_is_measured_at_a_time(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.npy").touch()
    assert run("vector", "bench").exit_code == 2
    assert run("vector", "bench", "c", "--glove", str(tmp_path / "x.npy")).exit_code == 2
    assert run("vector", "bench", "c", "--apply").exit_code == 2
    assert run("vector", "bench", "--glove", str(tmp_path / "x.npy")).exit_code == 2  # it is empty


def npy(rows: list[tuple[float, ...]], descr: str = "<f4") -> bytes:
    head = repr({"descr": descr, "fortran_order": False, "shape": (len(rows), len(rows[0]))}).encode()
    data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def test_word_vectors_are_read_from_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "glove.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/small.npy", b"")
        archive.writestr("package/data.npy", npy([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)]))
    source = glove(wheel, 2)
    assert (source.count, source.dimension) == (2, 2)
    vectors = [struct.unpack("<2f", base64.b64decode(point["vector"])) for point in source.points]
    assert vectors == [(1.0, 2.0), (3.0, 4.0)]
    (tmp_path / "double.npy").write_bytes(npy([(1.0,)], descr="<f8"))
    for name in ("double.npy", "glove.txt"):
        (tmp_path / "glove.txt").write_text("no wheel")
        with pytest.raises(Unreadable):
            glove(tmp_path / name, None)


def test_glosses_are_read_from_wordnet(tmp_path: Path) -> None:
    (tmp_path / "dict").mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        lines = ["  1 licence", f"00001740 03 n 01 entity 0 000 | a {part} that is  ", "00001741 03 n | "]
        (tmp_path / "dict" / f"data.{part}").write_text("\n".join(lines))
    source = wordnet(tmp_path, 3)
    assert list(source.points) == [
        {"id": "noun-00001740", "text": "a noun that is"},
        {"id": "verb-00001740", "text": "a verb that is"},
        {"id": "adj-00001740", "text": "a adj that is"},
    ]
    with pytest.raises(Unreadable):
        wordnet(tmp_path / "dict" / "data.noun", None)
