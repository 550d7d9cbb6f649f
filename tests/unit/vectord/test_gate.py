"""The role gate: what is asked for is what is seen, whatever the name, the filter or the catalogue."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectord.backends import FakeStore, Query, Scored, ShardSpec, Where
from vectord.backends.fake import FakeShard
from vectord.engine.roles import normal_form

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Open, Vectord

GATED = {"dimension": 2, "gated": True}
V = [1.0, 0.0]
CATALOGUE = {
    "roles": [
        {"name": "Forklift Operator", "aliases": ["lift driver"], "compatible": ["Warehouse Associate"]},
        {"name": "Warehouse Associate", "aliases": ["picker/packer"]},
        {"name": "Nurse", "aliases": ["RN"]},
    ]
}
POINTS: list[dict[str, Any]] = [
    {"id": "f", "vector": V, "text": "shared words f", "role": "Forklift Operator", "payload": {"n": 1}},
    {"id": "l", "vector": V, "text": "shared words l", "role": "LIFT-DRIVER", "payload": {"n": 2}},
    {"id": "w", "vector": V, "text": "shared words w", "role": "picker packers", "payload": {"n": 3}},
    {"id": "n", "vector": V, "text": "shared words n", "role": "nurse", "payload": {"n": 4, "role": "Nurse"}},
]


async def gated(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/roles", CATALOGUE)
    await vectord.call("PUT", "/collections/g", GATED)
    await vectord.put("g", *POINTS)


async def seen(vectord: "Vectord", role: str, **more: Any) -> set[str | int]:
    """What a role sees, by every way there is; they must agree."""
    everywhere = [
        set(await vectord.ids("g", {"vector": V, "role": role, "exact": exact}, **more))
        for exact in (True, False)
    ]
    everywhere.append(
        set(await vectord.ids("g", {"text": "shared words", "mode": "sparse", "role": role}, **more))
    )
    scroll = await vectord.call("POST", "/collections/g/points/scroll", {"role": role}, **more)
    everywhere.append({point["id"] for point in scroll["points"]})
    body = {"role": role, "ids": ["f", "l", "w", "n"]}
    got = await vectord.call("POST", "/collections/g/points/get", body, **more)
    everywhere.append({point["id"] for point in got["points"]})
    body = {"query": "shared words", "collections": ["g"], "role": role, "mode": "sparse"}
    answer = await vectord.call("POST", "/retrieve", body, **more)
    assert answer["gate"]["dropped"] == []
    everywhere.append({hit["id"] for hit in answer["hits"]})
    count = await vectord.call("POST", "/collections/g/points/count", {"role": role}, **more)
    assert all(found == everywhere[0] for found in everywhere)
    assert count["count"] == len(everywhere[0])
    assert await vectord.metric("vectord_gate_leaks_total") == 0
    return everywhere[0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "ids"),
    [
        ("Forklift Operator", {"f", "l", "w"}),
        ("forklift  operators", {"f", "l", "w"}),
        ("\uff46\uff4f\uff52klift_operator", {"f", "l", "w"}),
        ("Lift Driver", {"f", "l", "w"}),
        ("warehouse associate", {"w"}),
        ("Picker-Packer", {"w"}),
        ("r.n", None),
        ("rn", {"n"}),
        ("nurse", {"n"}),
    ],
)
async def test_a_role_sees_its_own_and_the_compatible(
    vectord: "Vectord", role: str, ids: set[str] | None
) -> None:
    await gated(vectord)
    if ids is None:
        assert (await vectord.error("POST", "/collections/g/search", {"vector": V, "role": role}))[
            "code"
        ] == ("role_unknown")
    else:
        assert await seen(vectord, role) == ids


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("/collections/g/search", {"vector": V}),
    ("/collections/g/points/get", {"ids": ["f"]}),
    ("/collections/g/points/get", {}),
    ("/collections/g/points/scroll", {}),
    ("/collections/g/points/count", {}),
    ("/collections/g/points/delete", {"ids": ["f"]}),
    ("/collections/g/points/delete", {"filter": {}}),
    ("/retrieve", {"query": "shared", "collections": ["g"], "mode": "sparse"}),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "code"),
    [
        (None, "role_required"),
        ("", "role_required"),
        (" \u200b-", "role_required"),
        ("surgeon", "role_unknown"),
        ("nur\u0455e", "role_unknown"),  # a Cyrillic letter that looks like s
        ("nurse,forklift operator", "role_unknown"),
        ("*", "role_unknown"),
    ],
)
async def test_no_role_and_an_unknown_one_see_nothing(
    vectord: "Vectord", role: str | None, code: str
) -> None:
    await gated(vectord)
    for path, body in WAYS:
        assert (await vectord.error("POST", path, body | {"role": role}))["code"] == code
    for point in ({"id": "x", "vector": V, "role": role}, {"id": "x", "vector": V} if role is None else None):
        if point is not None:
            error = await vectord.error("PUT", "/collections/g/points", {"points": [POINTS[0], point]})
            assert (error["code"], error["param"]) == (code, "points.1.role")
    assert await seen(vectord, "nurse") == {"n"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "widening",
    [
        {},
        {"must": []},
        {"should": [{"key": "role", "exists": True}, {"key": "role", "exists": False}]},
        {"should": [{"key": "role_key", "match": "nurse"}, {"key": "n", "exists": True}]},
        {"must_not": [{"must_not": [{"key": "n", "range": {"gte": 0}}]}]},
        {"should": [{"key": "n", "exists": True}, {"must": [], "should": [], "must_not": []}]},
        {"must": [{"key": "$s", "exists": False}]},
    ],
)
async def test_a_filter_cannot_widen(vectord: "Vectord", widening: dict[str, Any]) -> None:
    await gated(vectord)
    assert set(await vectord.ids("g", {"vector": V, "role": "nurse", "filter": widening})) <= {"n"}
    body = {"role": "nurse", "filter": widening}
    assert (await vectord.call("POST", "/collections/g/points/count", body))["count"] <= 1
    assert (await vectord.call("POST", "/collections/g/points/delete", body))["deleted"] <= 1
    assert await seen(vectord, "forklift operator") == {"f", "l", "w"}


@pytest.mark.anyio
async def test_a_payload_cannot_pose_as_a_role(vectord: "Vectord") -> None:
    await gated(vectord)
    forged = {
        "role": "nurse",
        "role_key": "nurse",
        "id": "n",
        "text": "x",
        "json": "{}",
        "p": {"role": "nurse"},
    }
    await vectord.put(
        "g", {"id": "l", "vector": V, "text": "shared words", "role": "picker", "payload": forged}, status=400
    )
    await vectord.put(
        "g", {"id": "l", "vector": V, "text": "shared words", "role": "picker/packer", "payload": forged}
    )
    assert await seen(vectord, "nurse") == {"n"}
    body = {"role": "warehouse associate", "ids": ["l"]}
    (point,) = (await vectord.call("POST", "/collections/g/points/get", body))["points"]
    assert (point["id"], point["role"], point["payload"]) == ("l", "picker/packer", forged)


@pytest.mark.anyio
async def test_deleting_takes_only_what_the_role_sees(vectord: "Vectord") -> None:
    await gated(vectord)
    body = {"ids": ["f", "l", "w", "n"], "role": "nurse"}
    assert await vectord.call("POST", "/collections/g/points/delete", body) == {"deleted": 1}
    assert await seen(vectord, "forklift operator") == {"f", "l", "w"}


@pytest.mark.anyio
async def test_a_limited_key_may_ask_for_its_roles_alone(vectord: "Vectord") -> None:
    await gated(vectord)
    await vectord.call("PUT", "/collections/open", {"dimension": 2})
    await vectord.put("open", {"id": 1, "vector": V})
    limited = {"roles": "RN"}
    assert await seen(vectord, "Nurses", **limited) == {"n"}
    assert await vectord.ids("open", {"vector": V}, **limited) == [1]
    for path, body in WAYS:
        asked = body | {"role": "warehouse associate"}
        error = await vectord.error("POST", path, asked, status=403, **limited)
        assert error["code"] == "role_forbidden"
        await vectord.error("POST", path, asked, status=403, roles="")
    await vectord.put("g", {"id": "x", "vector": V, "role": "picker/packer"}, status=403, **limited)
    stolen = await vectord.put("g", {"id": "f", "vector": V, "role": "nurse"}, status=403, **limited)
    assert stolen["error"]["param"] == "points.0.id"
    await vectord.put("g", {"id": "n2", "vector": V, "text": "shared words", "role": "nurse"}, **limited)
    await vectord.error("DELETE", "/collections/g", status=403, **limited)
    await vectord.error("PUT", "/roles", {"roles": []}, status=403, **limited)
    assert await seen(vectord, "forklift operator") == {"f", "l", "w"}


@pytest.mark.anyio
async def test_without_a_catalogue_a_name_stands_for_itself(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/g", GATED)
    await vectord.put("g", *POINTS)
    assert await seen(vectord, "forklift operators") == {"f"}
    assert await seen(vectord, "lift driver") == {"l"}
    assert await seen(vectord, "nur\u0455e") == set()


@pytest.mark.anyio
async def test_a_new_catalogue_moves_nothing_into_sight_by_old_decisions(
    vectord: "Vectord", open_vectord: "Open"
) -> None:
    del open_vectord
    await gated(vectord)
    # "lift driver" is a role of its own now, "forklift operator" is gone, its name means something else.
    await vectord.call(
        "PUT",
        "/roles",
        {"roles": [{"name": "Lift Driver"}, {"name": "Nurse", "compatible": ["Lift Driver"]}]},
    )
    assert await seen(vectord, "lift driver") == {"l"}
    assert await seen(vectord, "nurse") == {"n", "l"}
    error = await vectord.error("POST", "/collections/g/search", {"vector": V, "role": "Forklift Operator"})
    assert error["code"] == "role_unknown"
    await vectord.call("PUT", "/roles", CATALOGUE)
    assert await seen(vectord, "Forklift Operator") == {"f", "l", "w"}


@pytest.mark.anyio
async def test_the_catalogue_is_checked_and_kept(open_vectord: "Open", tmp_path: pathlib.Path) -> None:
    async with open_vectord() as vectord:
        assert await vectord.call("GET", "/roles") == {"roles": []}
        for roles, param in (
            ([{"name": "Welder"}, {"name": "welders"}], "roles.1.name"),
            ([{"name": "Welder"}, {"name": "Welder"}], "roles.1.name"),
            ([{"name": "Welder"}, {"name": "Fitter", "aliases": ["WELDER"]}], "roles.1.aliases.0"),
            ([{"name": "Welder", "aliases": ["x"]}, {"name": "F", "aliases": ["X"]}], "roles.1.aliases.0"),
            ([{"name": "Welder", "compatible": ["Pilot"]}], "roles.0.compatible.0"),
            ([{"name": "--"}], "roles.0.name"),
        ):
            error = await vectord.error("PUT", "/roles", {"roles": roles})
            assert error["param"] == param
        kept = await vectord.call("PUT", "/roles", CATALOGUE)
        assert kept["roles"][2] == {"name": "Nurse", "aliases": ["RN"], "compatible": []}
    async with open_vectord() as vectord:
        assert await vectord.call("GET", "/roles") == kept
    (tmp_path / "vectors" / "roles.json").write_text("{")
    with pytest.raises(Exception, match=r"roles\.json"):
        async with open_vectord():
            pass


@pytest.mark.anyio
async def test_on_an_ungated_collection_a_role_only_narrows(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/roles", CATALOGUE)
    await vectord.call("PUT", "/collections/c", {"dimension": 2})
    await vectord.put("c", {"id": "common", "vector": V}, *POINTS)
    assert len(await vectord.ids("c", {"vector": V})) == 5
    assert set(await vectord.ids("c", {"vector": V, "role": "RN"})) == {"common", "n"}
    assert (await vectord.error("POST", "/collections/c/search", {"vector": V, "role": "?"}))["code"] == (
        "role_required"
    )


class LeakyShard(FakeShard):
    """An index whose role filter does not work."""

    def search(self, query: Query, where: Where) -> list[Scored]:
        return super().search(query, Where(where.filter, where.ids))


class LeakyStore(FakeStore):
    def open(self, folder: pathlib.Path, spec: ShardSpec) -> FakeShard:
        whole = super().open(folder, spec)
        return LeakyShard(self, spec, whole._records)


@pytest.mark.anyio
async def test_the_check_after_the_index_stops_a_leak(open_vectord: "Open") -> None:
    async with open_vectord(LeakyStore()) as vectord:
        await gated(vectord)
        assert await vectord.ids("g", {"vector": V, "role": "nurse"}) == ["n"]
        assert await vectord.metric("vectord_gate_leaks_total") == 3
        body = {"query": "shared", "collections": ["g"], "role": "RN", "mode": "sparse"}
        answer = await vectord.call("POST", "/retrieve", body)
        assert [hit["id"] for hit in answer["hits"]] == ["n"]
        gate = answer["gate"]
        assert (gate["role"], gate["canonical_role"], gate["checked"]) == ("RN", "Nurse", 4)
        assert {(item["id"], item["reason"]) for item in gate["dropped"]} == {
            ("f", "role_mismatch"),
            ("l", "role_mismatch"),
            ("w", "role_mismatch"),
        }
        assert await vectord.metric("vectord_gate_leaks_total") == 6


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (("Sales Associates", "sales-associate"), True),
        (("Secretaries", "secretary"), True),
        (("Press/Operator", "press operator"), True),
        (("STRASSE", "straße"), True),
        (("C# developer", "C developer"), False),
        (("boss", "bos"), False),
        (("R&D lead", "RD lead"), False),
        (("operator", "0perator"), False),
        (("कि", "कु"), False),  # two vowel signs, which are marks and not letters
    ],
)
def test_names_that_are_the_same_role(names: Sequence[str], same: bool) -> None:
    assert (normal_form(names[0]) == normal_form(names[1])) is same


@given(st.text(max_size=12))
def test_a_normal_form_keeps_its_words(name: str) -> None:
    """Upper case, full-width forms and padding never make another role."""
    assert normal_form(f"  {name}\t") == normal_form(name)
    assert normal_form(name.upper()) == normal_form(name.upper().casefold())
