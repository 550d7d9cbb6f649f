"""Real workers without room on the disk: writes are refused, reads go on, and no restart is needed."""

import asyncio
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.testing import client_for
from vectord.app import create_app
from vectord.engine import Disk
from vectord.settings import Settings

DISK_BYTES = 160 * 1024 * 1024
BLOCK = bytes(64 * 1024)
V = [1.0, 2.0, 3.0]


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own. Skips the test where none may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Take all the space there is, and return the file that has it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(BLOCK)
            except OSError:
                return ballast


async def ask(http: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    return await http.request(method, f"/v1/collections/{path}", json=body)


async def assert_refused(http: httpx.AsyncClient) -> None:
    many = {"points": [{"id": number, "vector": V, "text": "x" * 1000} for number in range(2, 500)]}
    for method, path, body in (
        ("PUT", "c/points", many),
        ("POST", "c/points/delete", {"ids": [1]}),
        ("PUT", "d", {"dimension": 3}),
        ("POST", "c/snapshots", None),
    ):
        answer = await ask(http, method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full"), answer.text


async def assert_read(http: httpx.AsyncClient) -> None:
    for path, body in (
        ("c/search", {"vector": V}),
        ("c/search", {"vector": V, "exact": True, "with": ["vector"]}),
        ("c/search", {"text": "night", "mode": "sparse"}),
        ("c/points/scroll", {}),
    ):
        answer = (await ask(http, "POST", path, body)).json()
        assert [found["id"] for found in answer.get("hits", answer.get("points"))] == [1]
    assert (await http.get("/readyz")).status_code == 200


def test_a_full_disk_is_told_and_outlived(small_disk: pathlib.Path) -> None:
    async def story() -> None:
        app = create_app(Settings(data=small_disk, workers=1, disk_free_bytes_min=0))
        async with client_for(app) as http:
            await ask(http, "PUT", "c", {"dimension": 3})
            point = {"id": 1, "vector": V, "text": "night shift"}
            await ask(http, "PUT", "c/points", {"points": [point], "durability": "fsync"})
            ballast = fill(small_disk)
            assert shutil.disk_usage(small_disk).free < len(BLOCK)
            for _ in range(3):
                await assert_refused(http)
                await assert_read(http)
            ballast.unlink()
            await assert_read(http)
            await ask(http, "PUT", "c/points", {"points": [{"id": 2, "vector": V}]})
            assert (await ask(http, "GET", "c")).json()["count"] == 2

    asyncio.run(story())


def test_a_disk_that_was_full_at_the_start_is_no_reason_to_start_again(small_disk: pathlib.Path) -> None:
    async def story() -> None:
        settings = Settings(data=small_disk, workers=1, disk_free_bytes_min=0, reopen_interval_s=0.05)
        async with client_for(create_app(settings)) as http:
            await ask(http, "PUT", "c", {"dimension": 3})
            await ask(http, "PUT", "c/points", {"points": [{"id": 1, "vector": V, "text": "night"}]})
        ballast = fill(small_disk)
        async with client_for(create_app(settings)) as http:
            answer = await ask(http, "POST", "c/search", {"vector": V})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full")
            ballast.unlink()
            async with asyncio.timeout(30):
                while (await ask(http, "GET", "c")).status_code != 200:  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0.05)
            await assert_read(http)

    asyncio.run(story())


def test_an_engine_that_a_full_disk_ended_comes_back_with_room(
    small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another program takes the last bytes between our look at the disk and the write."""
    monkeypatch.setattr(Disk, "_check", lambda *_: None)
    many = {"points": [{"id": n, "vector": V, "payload": {"x": "y" * 10_000}} for n in range(2, 500)]}

    async def story() -> None:
        async with client_for(create_app(Settings(data=small_disk, workers=1))) as http:
            await ask(http, "PUT", "c", {"dimension": 3})
            await ask(http, "PUT", "c/points", {"points": [{"id": 1, "vector": V, "text": "night"}]})
            ballast = fill(small_disk)
            for _ in range(2):
                answer = await ask(http, "PUT", "c/points", many)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full"), answer.text
                read = await ask(http, "POST", "c/search", {"vector": V, "k": 1, "with": []})
                # Without its process there are no reads; they are told so like the writes.
                assert read.status_code == 200 or read.json()["error"]["code"] == "disk_full", read.text
            ballast.unlink()
            found = await ask(http, "POST", "c/points/get", {"ids": [1]})
            assert found.json()["points"][0]["text"] == "night"
            answer = await ask(http, "PUT", "c/points", many)
            assert answer.json() == {"upserted": 498, "durability": "wal"}
            assert (await ask(http, "GET", "c")).json()["count"] == 499

    asyncio.run(story())
