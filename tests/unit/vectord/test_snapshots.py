"""Snapshots: whole, restorable elsewhere, refused when anything about the file is not as it was written."""

import hashlib
import io
import json
import pathlib
import shutil
import stat
import threading
import warnings
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from vectord.backends import EdgeStore, FakeStore, Page, ShardSpec, Where
from vectord.backends.fake import FakeShard

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Open, Vectord

pytestmark = pytest.mark.anyio

SPEC: dict[str, Any] = {"dimension": 3, "distance": "euclid", "payload_indexes": {"n": "integer"}}


def point(number: int, **more: Any) -> dict[str, Any]:
    key = number if number % 2 else f"id {number}"
    vector = [1.0, number / 7, -number / 3]
    return {"id": key, "vector": vector, "text": f"text ü {number}", "payload": {"n": number}, **more}


async def everything(vectord: "Vectord", name: str, **body: Any) -> list[dict[str, Any]]:
    body = {"with": ["payload", "text", "vector"], "limit": 1000, **body}
    answer = await vectord.call("POST", f"/collections/{name}/points/scroll", body)
    points: list[dict[str, Any]] = answer["points"]
    return points


async def snapshot_of(vectord: "Vectord", name: str = "c") -> dict[str, Any]:
    made: dict[str, Any] = await vectord.call("POST", f"/collections/{name}/snapshots")
    return made


async def fetched(vectord: "Vectord", made: dict[str, Any]) -> bytes:
    answer = await vectord.http.get(f"/v1/collections/{made['collection']}/snapshots/{made['name']}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    return answer.content


async def bring(vectord: "Vectord", name: str, key: str, content: bytes, *, status: int = 200) -> Any:
    answer = await vectord.http.put(f"/v1/collections/{name}/snapshots/{key}", content=content)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_snapshot_that_asks_for_more_is_refused(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", SPEC)
    error = await vectord.error("POST", "/collections/c/snapshots", {"name": "mine"})
    assert (error["code"], error["param"]) == ("unknown_field", "name")
    assert (await vectord.call("GET", "/collections/c/snapshots"))["snapshots"] == []
    assert (await vectord.call("POST", "/collections/c/snapshots", {}))["points"] == 0


async def test_a_snapshot_restores_elsewhere(open_vectord: "Open", tmp_path: pathlib.Path) -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *(point(number) for number in range(1, 40)))
        before = await everything(vectord, "c")
        made = await snapshot_of(vectord)
        assert (made["points"], made["collection"]) == (39, "c")
        content = await fetched(vectord, made)
        assert len(content) == made["bytes"]
        manifest = zipfile.ZipFile(io.BytesIO(content)).read("manifest.json")
        assert hashlib.sha256(manifest).hexdigest() == made["sha256"]
    elsewhere = tmp_path / "elsewhere"
    async with open_vectord(EdgeStore(), data=elsewhere) as vectord:
        brought = await bring(vectord, "d", "brought", content)
        assert brought == {**made, "name": "brought"}
        restored = await vectord.call("POST", "/collections/d/restore", {"snapshot": "brought"})
        assert (restored["count"], restored["payload_indexes"]) == (39, {"n": "integer"})
        after = await everything(vectord, "d")
        for old, new in zip(before, after, strict=True):
            assert new["vector"] == pytest.approx(old["vector"], rel=1e-6)
            assert {**new, "vector": None} == {**old, "vector": None}
        hits = await vectord.ids("d", {"vector": point(7)["vector"], "k": 1})
        assert hits == [7]
        assert await vectord.ids("d", {"text": "text 8", "mode": "sparse", "k": 1}) == ["id 8"]


async def test_snapshots_outlive_a_collection_and_bring_it_back(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", SPEC)
    await vectord.put("c", point(1))
    first = await snapshot_of(vectord)
    await vectord.put("c", point(2))
    second = await snapshot_of(vectord)
    error = await vectord.error("POST", "/collections/c/restore", {"snapshot": first["name"]}, status=409)
    assert error["code"] == "collection_exists"
    await vectord.call("DELETE", "/collections/c")
    listed = (await vectord.call("GET", "/collections/c/snapshots"))["snapshots"]
    assert sorted(item["name"] for item in listed) == sorted([first["name"], second["name"]])
    await vectord.call("POST", "/collections/c/restore", {"snapshot": first["name"]})
    assert [item["id"] for item in await everything(vectord, "c")] == [1]
    body = {"snapshot": second["name"], "collection": "c"}
    assert (await vectord.call("POST", "/collections/other/restore", body))["count"] == 2
    await vectord.call("DELETE", f"/collections/c/snapshots/{first['name']}")
    error = await vectord.error(
        "POST", "/collections/d/restore", {**body, "snapshot": first["name"]}, status=404
    )
    assert error["code"] == "snapshot_not_found"


async def test_reads_go_on_and_writes_wait_while_a_snapshot_is_made(open_vectord: "Open") -> None:
    read = threading.Event()

    class Slow(FakeStore):
        """Scrolls nothing before a search was answered."""

        def open(self, folder: pathlib.Path, spec: ShardSpec) -> FakeShard:
            shard = super().open(folder, spec)
            scroll = shard.scroll

            def slowly(where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
                assert read.wait(30)
                return scroll(where, limit=limit, cursor=cursor, with_vector=with_vector)

            shard.scroll = slowly  # type: ignore[method-assign] # the point of the test
            return shard

    async with open_vectord(Slow()) as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", point(1))
        made: list[dict[str, Any]] = []

        async def make() -> None:
            made.append(await snapshot_of(vectord))

        async with anyio.create_task_group() as group:
            group.start_soon(make)
            await anyio.sleep(0.05)
            assert await vectord.ids("c", {"vector": [1.0, 0.0, 0.0]}) == [1]
            group.start_soon(vectord.put, "c", point(2))
            await anyio.sleep(0.05)
            read.set()
        assert made[0]["points"] == 1
        assert len(await everything(vectord, "c")) == 2


async def test_there_is_a_limit_and_half_written_ones_go(
    open_vectord: "Open", tmp_path: pathlib.Path
) -> None:
    async with open_vectord(snapshots_max=1) as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await snapshot_of(vectord)
        error = await vectord.error("POST", "/collections/c/snapshots", status=409)
        assert error["code"] == "snapshots_max"
    folder = tmp_path / "vectors" / ".snapshots" / "c"
    (folder / ".making-abc").write_bytes(b"half")
    (folder / "torn.zip").write_bytes(b"PK\x03\x04 half of one")
    async with open_vectord() as vectord:
        assert not (folder / ".making-abc").exists()
        assert len((await vectord.call("GET", "/collections/c/snapshots"))["snapshots"]) == 1
        body = {"snapshot": "torn", "collection": "c"}
        assert (await vectord.error("POST", "/collections/t/restore", body))["code"] == "snapshot_broken"
        await vectord.call("GET", "/collections/t", status=404)


# --- hostile files ------------------------------------------------------------------------------

Members = dict[str, bytes]


def packed(members: Members, *more: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that comes twice
        for name, content in members.items():
            file.writestr(name, content)
        for info, content in more:
            file.writestr(info, content)
    return out.getvalue()


def changed(files: Members, /, **fields: Any) -> bytes:
    manifest = json.loads(files["manifest.json"]) | fields
    return packed({**files, "manifest.json": json.dumps(manifest).encode()})


def with_lines(members: Members, lines: bytes) -> bytes:
    """The same, with another part whose sha256 the manifest vouches for."""
    return sealed({**members, "points-000000.jsonl": lines})


def sealed(files: Members, /) -> bytes:
    listed = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
        if name != "manifest.json"
    ]
    return changed(files, members=listed)


def link() -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("points-000001.jsonl")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


def line(members: Members, **fields: Any) -> bytes:
    first, *rest = members["points-000000.jsonl"].splitlines(keepends=True)
    return json.dumps(json.loads(first) | fields).encode() + b"\n" + b"".join(rest)


FOREIGN = {"name": "../x", "bytes": 1, "sha256": "0" * 64}
NAN = b"\x00\x00\xc0\x7f"
HOSTILE: dict[str, Callable[[Members], bytes]] = {
    "no zip": lambda _: b"not a zip",
    "cut short": lambda m: packed(m)[:-30],
    "a foreign path": lambda m: packed(m, (zipfile.ZipInfo("../../roles.json"), b"{}")),
    "an absolute path": lambda m: packed(m, (zipfile.ZipInfo("/etc/cron.d/x"), b"{}")),
    "a link": lambda m: packed(m, link()),
    "an unknown member": lambda m: packed(m, (zipfile.ZipInfo("points-000009.jsonl"), b"{}")),
    "a member twice": lambda m: packed(m, (zipfile.ZipInfo("points-000000.jsonl"), b"{}")),
    "a member missing": lambda m: packed({"manifest.json": m["manifest.json"]}),
    "no manifest": lambda m: packed({key: value for key, value in m.items() if key != "manifest.json"}),
    "a manifest that is none": lambda m: packed({**m, "manifest.json": b"[]"}),
    "a foreign name in the manifest": lambda m: changed(m, members=[FOREIGN]),
    "another format": lambda m: changed(m, format="stillhouse.snapshot.v9"),
    "other points": lambda m: packed({**m, "points-000000.jsonl": line(m, text="other")}),
    "other vectors": lambda m: packed({**m, "vectors-000000.f32": m["vectors-000000.f32"][:-1] + b"\x01"}),
    "too few vectors": lambda m: sealed({**m, "vectors-000000.f32": m["vectors-000000.f32"][:-4]}),
    "a vector of NaN": lambda m: sealed({**m, "vectors-000000.f32": NAN * 3 * 5}),
    "another dimension": lambda m: changed(m, dimension=4),
    "another count": lambda m: changed(m, points=99),
    "a point that is none": lambda m: with_lines(m, line(m, surprise=1)),
    "an id twice": lambda m: with_lines(m, line(m, id=3)),
    "a huge payload": lambda m: with_lines(m, line(m, payload={"x": "y" * 70_000})),
    "a gated one without roles": lambda m: changed(m, spec={**SPEC, "gated": True}),
    "a larger one than may be": lambda m: sealed({**m, "points-000000.jsonl": b" " * 40_000}),
}  # fmt: skip


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_file_that_is_not_as_written_is_refused_and_makes_nothing(
    open_vectord: "Open", tmp_path: pathlib.Path, what: str
) -> None:
    async with open_vectord(snapshot_bytes_max=20_000 if what.startswith("a larger") else 10**9) as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *(point(number) for number in range(1, 6)))
        content = await fetched(vectord, await snapshot_of(vectord))
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        hostile = HOSTILE[what](members)
        refused = what in {"an id twice", "another count"}  # seen when the points are counted
        answer = await bring(vectord, "x", "bad", hostile, status=200 if refused else 400)
        if not refused:
            assert answer["error"]["code"] in {"snapshot_broken", "snapshot_too_large"}
            folder = tmp_path / "vectors" / ".snapshots" / "x"
            assert not folder.exists()
            folder.mkdir()
            (folder / "bad.zip").write_bytes(hostile)  # put there by hand, it fares no better
        error = await vectord.error("POST", "/collections/x/restore", {"snapshot": "bad"})
        assert error["code"] in {"snapshot_broken", "snapshot_too_large"}
        await vectord.call("GET", "/collections/x", status=404)
        assert not list((tmp_path / "vectors").glob(".making-*"))
        assert not list((tmp_path / "vectors" / ".snapshots").rglob(".making-*"))
        shutil.rmtree(tmp_path / "vectors" / ".snapshots" / "x")


async def test_names_of_snapshots_touch_no_path(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", SPEC)
    for key in ("%2e%2e%2froles", "A", "x.zip", "a" * 200):
        answer = await vectord.http.get(f"/v1/collections/c/snapshots/{key}")
        assert answer.status_code in {400, 404, 405}, key
    error = await vectord.error("POST", "/collections/c/restore", {"snapshot": "../c/x"})
    assert error["param"] == "snapshot"


async def test_files_put_there_by_hand_are_told_apart(open_vectord: "Open", tmp_path: pathlib.Path) -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        made = await snapshot_of(vectord)
        folder = tmp_path / "vectors" / ".snapshots" / "c"
        shutil.copy(folder / f"{made['name']}.zip", folder / "by-hand.zip")
        shutil.copy(folder / f"{made['name']}.zip", folder / "No Such Name.zip")
        (folder / "torn.zip").write_bytes(b"PK")
        (folder / "folder.zip").mkdir()
        (folder.parent / "readme").write_text("not a folder")
        listed = (await vectord.call("GET", "/collections/c/snapshots"))["snapshots"]
        assert [each["name"] for each in listed] == [made["name"], "by-hand"]
        error = await vectord.error("DELETE", "/collections/c/snapshots/torn")
        assert error["code"] == "snapshot_broken"
        assert "remove vectors/.snapshots/c/torn.zip by hand" in error["message"]
    async with open_vectord() as vectord:
        assert len((await vectord.call("GET", "/collections/c/snapshots"))["snapshots"]) == 2


async def test_a_snapshot_is_deleted_once(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", SPEC)
    made = await snapshot_of(vectord)
    statuses: list[int] = []

    async def delete() -> None:
        answer = await vectord.http.delete(f"/v1/collections/c/snapshots/{made['name']}")
        statuses.append(answer.status_code)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(delete)
    assert sorted(statuses) == [200, 404, 404, 404, 404]


async def test_a_limited_key_takes_no_snapshot_of_a_gated_collection(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/g", {**SPEC, "gated": True})
    await vectord.put("g", point(1, role="nurse"), point(2, role="welder"))
    key = (await snapshot_of(vectord, "g"))["name"]
    path = "/collections/g/snapshots"
    for method, where, body in (
        ("POST", path, None),
        ("GET", path, None),
        ("GET", f"{path}/{key}", None),
        ("DELETE", f"{path}/{key}", None),
        ("POST", "/collections/h/restore", {"snapshot": key, "collection": "g"}),
        ("POST", "/collections/g/points/export", {}),
    ):
        error = await vectord.error(method, where, body, status=403, roles="nurse")
        assert error["code"] == "role_forbidden", (method, where)
    restored = await vectord.call("POST", "/collections/h/restore", {"snapshot": key, "collection": "g"})
    assert restored["gated"] is True
    assert await vectord.ids("h", {"vector": [1, 0, 0], "role": "Nurses"}) == [1]
    assert (await vectord.error("POST", "/collections/h/search", {"vector": [1, 0, 0]}))[
        "code"
    ] == "role_required"


async def test_an_export_has_every_point_with_its_vector(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", SPEC)
    await vectord.put("c", *(point(number) for number in range(1, 20)))
    cursor, found = None, []
    while True:
        body = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = await vectord.call("POST", "/collections/c/points/export", body)
        found += page["points"]
        cursor = page.get("cursor")
        if cursor is None:
            break
    assert [item["id"] for item in found] == [item["id"] for item in await everything(vectord, "c")]
    assert (await vectord.error("POST", "/collections/c/points/export", {"cursor": "?"}))["param"] == "cursor"
    assert (await vectord.error("POST", "/collections/c/points/export", {"limit": 10**7}))["param"] == "limit"
