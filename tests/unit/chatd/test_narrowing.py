"""What a repair may say at all: never more than the kind's schema, always what a validator would accept."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from chatd.engine.narrowing import Narrowing
from schemas.artifacts import EmailDraft, FillProposal, SmsDraft
from schemas.base import JsonObject
from schemas.verdicts import Finding

SCHEMAS: dict[str, JsonObject] = {
    "fill": FillProposal.model_json_schema(by_alias=True),
    "sms": SmsDraft.model_json_schema(by_alias=True),
    "email": EmailDraft.model_json_schema(by_alias=True),
}
ORDER: JsonObject = {"order_id": "JO-100001", "client_id": "C-007", "count": 2}


def narrowing(kind: str, context: JsonObject, said: str = "", *ids: str) -> Narrowing:
    return Narrowing(kind, SCHEMAS[kind], context, said=said, worker_ids=ids)


def of_fill(said: str = "", *ids: str, **order: Any) -> Narrowing:
    return narrowing("fill", {"order": {**ORDER, **order}}, said, *ids)


def takes(asked: Narrowing, artifact: Any) -> bool:
    return jsonschema_rs.is_valid(asked.schema(), artifact)


def proposal(*ids: str, **extra: Any) -> Any:
    return {"order_id": "JO-100001", "fills": [{"worker_id": worker_id} for worker_id in ids], **extra}


def finding(code: str, path: str, fix: Any = None, severity: str = "error") -> Finding:
    return TypeAdapter(Finding).validate_python(
        {"code": code, "severity": severity, "path": path, "message": "m", "fix": fix}
    )


def replacing(index: int, worker_id: str) -> Any:
    value = {"worker_id": worker_id, "name": "Ann Lee"}
    return {"op": "replace", "path": f"/fills/{index}", "value": value}


def test_an_order_binds_id_and_count_and_candidates() -> None:
    asked = of_fill("", "W-1", "W-2", "W-3")
    assert takes(asked, proposal("W-1", "W-3"))
    assert not takes(asked, proposal("W-1", "W-3", order_id="JO-2"))
    assert not takes(asked, proposal("W-1"))
    assert not takes(asked, proposal("W-1", "W-2", "W-3"))
    assert not takes(asked, proposal("W-1", "W-9"))


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("W-1 Ann, W-2 Bob. Order JO-100001 of C-007", {"W-1", "W-2"}),
        (
            "JO-5 and C-1 are not workers, W12 and W34 are; 2026-11-02, x.W-9 and W-9-z are nothing",
            {"W12", "W34"},
        ),
        ("only W-1 is known", None),
        ("nobody", None),
    ],
)
def test_ids_that_the_user_wrote(said: str, known: set[str] | None) -> None:
    asked = of_fill(said)
    if known is None:
        assert takes(asked, proposal("anything", "else"))
        return
    assert takes(asked, proposal(*sorted(known)))
    assert not takes(asked, proposal("anything", "else"))


def test_words_that_do_not_look_like_known_ids_are_no_ids() -> None:
    asked = of_fill("forklift FL-100, W-3", "W-1")
    assert takes(asked, proposal("W-1", "W-3"))
    assert not takes(asked, proposal("W-1", "FL-100"))


def test_it_learns_who_is_free_and_who_is_not() -> None:
    asked = of_fill("", "W-1", "W-2", "W-3", "W-4")
    asked.learn(
        proposal("W-1", "W-2"), [finding("fill.worker_inactive", "/fills/1/worker_id", replacing(1, "W-9"))]
    )
    assert takes(asked, proposal("W-1", "W-9"))
    assert not takes(asked, proposal("W-1", "W-2"))
    assert not takes(asked, proposal("W-1", "W-3"))  # nobody has vouched for W-3


def test_somebody_whom_nobody_had_named_and_nothing_is_found_against_is_a_candidate() -> None:
    asked = of_fill()
    asked.learn(
        proposal("W-1", "W-2"), [finding("fill.worker_unknown", "/fills/0/worker_id", replacing(0, "W-9"))]
    )
    assert takes(asked, proposal("W-9", "W-2"))
    assert not takes(asked, proposal("W-1", "W-2"))


def test_after_a_repetition_seats_have_candidates_of_their_own() -> None:
    asked = of_fill("", "W-1", "W-2", "W-3", "W-4")
    asked.learn(
        proposal("W-1", "W-1"), [finding("fill.duplicate_worker", "/fills/1/worker_id", replacing(1, "W-9"))]
    )
    assert takes(asked, proposal("W-1", "W-9"))
    assert not takes(asked, proposal("W-1", "W-1"))
    assert not takes(asked, proposal("W-9", "W-9"))
    assert not takes(asked, proposal("W-1", "W-9", "W-2"))


def test_a_name_is_not_asked_for_beside_a_known_id() -> None:
    written: Any = {"order_id": "JO-100001", "fills": [{"worker_id": "W-1", "name": "Ann Lee"}, "odd"]}
    assert of_fill("", "W-1", "W-2").shown(written) == {
        "order_id": "JO-100001",
        "fills": [{"worker_id": "W-1"}, "odd"],
    }
    assert of_fill().shown(written) == written
    assert of_fill("", "W-1", "W-2").shown("text") == "text"


@pytest.mark.parametrize("count", [0, -1, True, 10**9, "2", None])
def test_a_count_that_is_none_binds_nothing(count: Any) -> None:
    assert takes(of_fill("", "W-1", count=count), proposal("W-1", "W-2", "W-3"))


def test_a_text_message_goes_to_a_number_that_was_named_and_fits() -> None:
    asked = narrowing("sms", {}, "Text Ana at +13125550143 or +13125550144.")
    assert takes(asked, {"to": "+13125550143", "body": "x" * 160})
    assert not takes(asked, {"to": "+13125550143", "body": "x" * 161})
    assert not takes(asked, {"to": "+13125550199", "body": "x"})
    assert not takes(asked, {"to": "+13125550143", "body": ""})
    fix = {"op": "replace", "path": "/to", "value": "+13125550100"}
    asked.learn({"to": "x", "body": "y"}, [finding("sms.recipient_mismatch", "/to", fix)])
    assert takes(asked, {"to": "+13125550100", "body": "x"})
    assert takes(narrowing("sms", {"segments_max": 2}), {"to": "any", "body": "x" * 306})


def test_an_email_goes_to_its_recipient_alone() -> None:
    context: JsonObject = {"recipient": {"email": "ann@example.com"}}
    asked = narrowing("email", context, "Write to Ann, copy bob@example.com.")
    draft = {"to": ["ann@example.com"], "subject": "Shift", "body": "Hello"}
    assert takes(asked, draft)
    assert takes(asked, {**draft, "cc": ["bob@example.com"]})
    assert not takes(asked, {**draft, "to": ["bob@example.com"]})
    assert not takes(asked, {**draft, "to": []})
    assert not takes(asked, {**draft, "headers": {}})
    assert not takes(narrowing("email", context), {**draft, "cc": ["bob@example.com"]})
    assert takes(narrowing("email", {}, "to eve@example.com"), {**draft, "to": ["eve@example.com"]})


def test_kinds_of_others_keep_their_schema() -> None:
    own: JsonObject = {"type": "object", "required": ["x"]}
    assert Narrowing("haiku", own, {"order": ORDER}, said="W-1 W-2").schema() == own


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["W-1", "JO-1", "a@b.co", "+13125550143"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["order", "order_id", "count", "fills", "worker_id", "recipient", "email", "to"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FINDINGS = st.lists(
    st.builds(
        finding,
        st.sampled_from(["fill.duplicate_worker", "fill.worker_unknown", "other.code"]),
        st.sampled_from(["", "/fills/0/worker_id", "/fills/1/worker_id", "/fills/7/worker_id", "/to"]),
        st.none()
        | st.fixed_dictionaries(
            {"op": st.sampled_from(["add", "replace", "remove"]), "path": st.just("/fills"), "value": JSON}
        ),
    ),
    max_size=3,
)


@given(
    kind=st.sampled_from(sorted(SCHEMAS)),
    context=st.dictionaries(st.sampled_from(["order", "recipient", "segments_max"]), JSON),
    said=st.text(max_size=40),
    learnt=st.lists(st.tuples(JSON, FINDINGS), max_size=3),
    answer=JSON,
)
def test_it_never_fails_and_never_widens(
    kind: str, context: JsonObject, said: str, learnt: list[tuple[Any, list[Finding]]], answer: Any
) -> None:
    asked = narrowing(kind, context, said)
    for artifact, findings in learnt:
        asked.learn(artifact, findings)
    asked.shown(answer)
    if takes(asked, answer):
        assert jsonschema_rs.is_valid(SCHEMAS[kind], answer)
