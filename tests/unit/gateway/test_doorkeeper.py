"""By whose keys the gateway goes while their file is changed, broken, gone, or cannot be read for a while."""

import tracemalloc
from pathlib import Path

import pytest

from gateway.engine import Doorkeeper
from services.errors import Unauthenticated, Unavailable
from services.keys import KeyGrant, Keys, KeyStore

pytestmark = pytest.mark.anyio

ANYWHERE = "0.0.0.0"


class Flaky(KeyStore):
    """A file that now and then cannot be read, as when no more files may be open."""

    failing = False

    def load(self) -> Keys:
        if self.failing:
            raise Unavailable("too many open files")
        return super().load()


@pytest.fixture
def store(tmp_path: Path) -> Flaky:
    return Flaky(tmp_path)


def made(store: KeyStore, name: str) -> str:
    key, _ = store.create(KeyGrant(name=name))
    return f"Bearer {key}"


async def problem_after_reload(doorkeeper: Doorkeeper) -> str | None:
    await doorkeeper.reload()
    return doorkeeper.problem


async def test_what_was_revoked_ends_although_the_file_could_not_be_read_at_first(store: Flaky) -> None:
    key = made(store, "laptop")
    doorkeeper = Doorkeeper(store, host=ANYWHERE)
    store.revoke("laptop")
    store.failing = True
    assert await problem_after_reload(doorkeeper)
    assert doorkeeper.identify(key)[0].name == "laptop"
    store.failing = False
    assert await problem_after_reload(doorkeeper) is None
    with pytest.raises(Unauthenticated, match="revoked"):
        doorkeeper.identify(key)


async def test_a_folder_that_is_gone_or_no_folder_is_told_and_opens_nothing(store: Flaky) -> None:
    key = made(store, "laptop")
    doorkeeper = Doorkeeper(store, host="127.0.0.1")
    folder = store.path.parent
    aside = folder.with_name("aside")
    folder.rename(aside)
    for is_file in (False, True):
        if is_file:
            folder.touch()
        assert await problem_after_reload(doorkeeper)
        assert doorkeeper.identify(key)[0].name == "laptop"
        with pytest.raises(Unauthenticated):
            doorkeeper.identify("Bearer sh-other")
        with pytest.raises(Unauthenticated):
            doorkeeper.identify(None)
    folder.unlink()
    aside.rename(folder)
    assert await problem_after_reload(doorkeeper) is None


def test_a_key_in_many_spellings_is_not_remembered_in_each(store: Flaky) -> None:
    key = made(store, "laptop").removeprefix("Bearer ")
    doorkeeper = Doorkeeper(store, host=ANYWHERE)
    tracemalloc.start()
    try:
        for spaces in range(60_000, 60_100):
            assert doorkeeper.identify(f"Bearer{' ' * spaces}{key}")[0].name == "laptop"
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
