"""The warm file: a restart is not cold, and a file that is not what was written does no harm."""

from pathlib import Path

import pytest

from embedd.app import create_app
from embedd.backends import FakeBackend
from embedd.engine.cache import Entry, Policy, VectorCache
from embedd.engine.warm import WarmFile
from embedd.settings import Settings
from services.testing import client_for
from tests.unit.embedd.engines import asked

pytestmark = pytest.mark.anyio

ENTRY = Entry(b"\1\2\3\4" * 8, 5)


async def misses(settings: Settings, backend: FakeBackend, *texts: str) -> str:
    """One life of the daemon, with one request in it."""
    async with client_for(create_app(settings, backends=[backend])) as client:
        answer = await client.post("/v1/embeddings", json={"model": "fake", "input": list(texts)})
    assert answer.status_code == 200
    return str(answer.headers["x-cache"].partition("misses=")[2])


def warm_file(settings: Settings) -> Path:
    return settings.data / "embedd" / f"warm-{settings.port}.bin"


async def test_a_restart_is_warm(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    backend = FakeBackend()
    assert await misses(settings, backend, "a", "b") == "2"
    assert await misses(settings, backend, "b", "c") == "1"
    assert await misses(settings, backend, "a", "b", "c") == "0"
    assert asked(backend.calls) == [["a", "b"], ["c"]]
    assert warm_file(settings).stat().st_mode & 0o777 == 0o600


async def test_a_model_that_was_replaced_meanwhile_starts_cold(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    await misses(settings, FakeBackend(digest="sha256:old"), "a")
    assert await misses(settings, FakeBackend(digest="sha256:new"), "a") == "1"


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    settings = Settings(data=tmp_path)
    await misses(settings, FakeBackend(), "a")
    path = warm_file(settings)
    content = path.read_bytes()
    flipped = content[:40] + bytes([content[40] ^ 1]) + content[41:]
    damaged = {"cut": content[:-5], "flipped": flipped, "foreign": b"x" * 500, "empty": b""}[damage]
    path.write_bytes(damaged)
    assert await misses(settings, FakeBackend(), "a") == "1"
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert await misses(settings, FakeBackend(), "a") == "0"


async def test_no_file_is_written_or_read_when_none_is_wanted(tmp_path: Path) -> None:
    await misses(Settings(data=tmp_path), FakeBackend(), "a")
    before = warm_file(Settings(data=tmp_path)).read_bytes()
    settings = Settings(data=tmp_path, warm_bytes_max=0)
    assert await misses(settings, FakeBackend(), "a") == "1"
    assert warm_file(settings).read_bytes() == before


async def test_a_folder_that_cannot_be_written_does_not_keep_the_daemon_from_its_work(tmp_path: Path) -> None:
    (tmp_path / "embedd").write_text("a file where the folder should be")
    assert await misses(Settings(data=tmp_path), FakeBackend(), "a") == "1"


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_the_hottest_are_kept_in_their_order(tmp_path: Path, policy: Policy) -> None:
    cache = VectorCache(bytes_max=1 << 20, policy=policy, ttl_s=0)
    keys = [bytes([number]) * 16 for number in range(10)]
    for key in keys:
        cache.put(key, ENTRY)
    for key in (keys[2], keys[7], keys[7]):
        cache.get(key)
    size = WarmFile(tmp_path / "all", bytes_max=1 << 20)
    assert size.save(cache.snapshot()) == 10
    assert len(cache) == 10  # a snapshot takes nothing away
    per_entry = ((tmp_path / "all").stat().st_size - 57) // 10
    few = WarmFile(tmp_path / "few", bytes_max=57 + 2 * per_entry)
    assert few.save(cache.snapshot()) == 2
    again = VectorCache(bytes_max=1 << 20, policy=policy, ttl_s=0)
    assert few.load_into(again) == 2
    assert [key for key, _, _ in again.snapshot().hottest_first()] == [keys[7], keys[2]]
    assert again.get(keys[7]) == ENTRY


def test_entries_do_not_grow_young_on_their_way_through_the_file(tmp_path: Path) -> None:
    file = WarmFile(tmp_path / "warm", bytes_max=1 << 20)
    now = [0.0]
    cache = VectorCache(bytes_max=1 << 20, policy="lru", ttl_s=100.0, clock=lambda: now[0])
    cache.put(b"a" * 16, ENTRY)
    now[0] = 90.0
    cache.put(b"b" * 16, ENTRY)
    file.save(cache.snapshot())
    later = [5000.0]
    again = VectorCache(bytes_max=1 << 20, policy="lru", ttl_s=100.0, clock=lambda: later[0])
    file.load_into(again)
    assert again.get(b"a" * 16) is not None
    later[0] += 50.0
    assert again.get(b"a" * 16) is None
    assert again.get(b"b" * 16) is not None
