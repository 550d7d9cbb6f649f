"""What holds for every verdict, seen from outside: it comes, it repeats itself, it points, it masks."""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.mutation.agency import Agency
from tests.mutation.cases import MAKERS
from tests.mutation.content_defects import BANKS, CARDS, PLACEHOLDERS, SSNS
from tests.mutation.door import Door

Json = dict[str, Any]
Judge = Callable[[Json], httpx.Response]

laws = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Asks one daemon, which lives as long as the tests of this file."""
    agency = Agency(random.Random(7))
    for _ in range(30):
        agency.hire()
    roster: Path = tmp_path_factory.mktemp("properties") / "roster.parquet"
    agency.write(roster)
    with Door(roster) as door:
        yield lambda body: door.ask(orjson.dumps(body))


@cache
def order() -> Json:
    """An order as the generator makes it."""
    context: Json = MAKERS["fill"](Agency(random.Random(3))).context
    return context


# --- what is asked ----------------------------------------------------------------------------

SECRETS = tuple(text for kinds in (SSNS, CARDS, BANKS) for texts in kinds.values() for text in texts)
PIECES = (
    *SECRETS,
    *(text for texts in PLACEHOLDERS.values() for text in texts),
    *(
        "Hi Bob,",
        "Dear Ms. Lee,\n",
        "see https://evil.io/a?b",
        "www.a.com.",
        "no women",
        "bill rate $32",
        "€",
        "😀",
        "’",
    ),
    *("\r\n", "\u202e", "\u200b", "\x00", "\ufdfa", "e\u0301", "(", "1", "-", " ", "STOP"),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=8).map(" ".join)
ids = st.sampled_from(["W-000000", "500000001", "wrk_2_Z", "W-000003", "", "w-000000"]) | st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def messages(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Artifacts with these fields, some of them absent, some of another type."""
    return st.fixed_dictionaries({}, optional={key: made | json_values for key, made in fields.items()})


recipients = st.fixed_dictionaries({"worker_id": ids}) | st.fixed_dictionaries(
    {"name": texts.filter(str.strip)}
)
contexts = st.fixed_dictionaries(
    {},
    optional={
        "recipient": recipients,
        "url_allowlist": st.lists(texts, max_size=2),
        "audience": st.sampled_from(["worker", "client"]),
    },
)
addresses = st.lists(texts | st.just("w0.a@gmail.com"), max_size=3)
requests = st.one_of(
    st.builds(
        lambda artifact, context: {"kind": "email", "artifact": artifact, "context": context},
        messages(
            to=addresses,
            cc=addresses,
            subject=texts,
            body=texts,
            headers=st.dictionaries(texts, texts, max_size=2),
            **{"from": texts},
        ),
        contexts,
    ),
    st.builds(
        lambda artifact, context, most: {
            "kind": "sms",
            "artifact": artifact,
            "context": context | {"segments_max": most, "first_contact": most > 1},
        },
        messages(to=texts | st.just("+16142000000"), body=texts),
        contexts,
        st.integers(1, 3),
    ),
    st.builds(
        lambda artifact: {"kind": "fill", "artifact": artifact, "context": order()},
        messages(order_id=ids, fills=st.lists(messages(worker_id=ids, name=texts) | json_values, max_size=4)),
    ),
    st.builds(
        lambda artifact, schema: {"kind": "json_schema", "artifact": artifact, "context": {"schema": schema}},
        json_values,
        st.sampled_from(
            [
                {"type": "object", "additionalProperties": {"type": "integer"}},
                {"items": {"type": "string", "maxLength": 3}},
                {"not": {}},
                {"enum": [1]},
            ]
        ),
    ),
)

# --- what must come back ----------------------------------------------------------------------


@laws
@given(body=requests)
def test_a_verdict_comes_and_comes_again(judge: Judge, body: Json) -> None:
    first, second = judge(body), judge(body)
    assert first.status_code in (200, 400), first.text
    assert _timeless(first) == _timeless(second)


def _timeless(answer: httpx.Response) -> bytes:
    return re.sub(rb'"(elapsed_ms|request_id)":[^,}]+', b"", answer.content)


@laws
@given(body=requests)
def test_findings_point_at_what_they_are_about(judge: Judge, body: Json) -> None:
    answer = judge(body)
    if answer.status_code != 200:
        return
    verdict = answer.json()
    severities = [finding["severity"] for finding in verdict["findings"]]
    assert verdict["ok"] == (verdict["verdict"] == "accepted")
    assert verdict["ok"] == (not {"error", "review"} & set(severities))
    if isinstance(body["artifact"], str):
        return
    for finding in verdict["findings"]:
        place = _at(body["artifact"], finding["path"])
        if "span" in finding:
            start, end = finding["span"]
            assert isinstance(place, str)
            assert 0 <= start < end <= len(place)
        if "fix" in finding:
            _at(body["artifact"], finding["fix"]["path"].removesuffix("/-"))


ABSENT = object()


def _at(value: Any, pointer: str) -> Any:
    """What the pointer leads to; its last key may be missing, since that is what some findings are about."""
    assert pointer == "" or pointer.startswith("/")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for number, part in enumerate(parts):
        if isinstance(value, list):
            value = value[int(part)]
        elif part in value:
            value = value[part]
        else:
            assert number == len(parts) - 1, pointer
            return ABSENT
    return value


@laws
@given(before=texts, secret=st.sampled_from(SECRETS), after=texts)
@example(before="", secret="SSN 123-45-6789", after="{{name}}")
@pytest.mark.parametrize("kind", ["email", "sms"])
def test_a_number_is_found_and_not_repeated(
    judge: Judge, kind: str, before: str, secret: str, after: str
) -> None:
    """Neither messages, nor evidence, nor fixes print a social security, card or account number."""
    draft = {"to": "+16142000000"} if kind == "sms" else {"to": ["w0.a@gmail.com"], "subject": "Hi"}
    body = f"{before}. {secret}. {after}"
    verdict = judge({"kind": kind, "artifact": draft | {"body": body}, "context": {}}).json()
    told = orjson.dumps(
        [[finding["message"], finding.get("evidence"), finding.get("fix")] for finding in verdict["findings"]]
    ).decode()
    digits = re.sub(r"\D", "", _ascii(secret))
    assert digits not in re.sub(r"[^\w]", "", told)
    assert any(code.startswith("content.pii_") for code in (f["code"] for f in verdict["findings"]))


def _ascii(text: str) -> str:
    return "".join(chr(ord(char) - 0xFEE0) if "\uff10" <= char <= "\uff19" else char for char in text)


@laws
@given(
    number=st.sampled_from(["123-45-6789", "4111 1111 1111 1111"]),
    name=st.sampled_from(["worker_id", "name"]),
)
def test_a_number_in_another_place_is_not_repeated_either(judge: Judge, number: str, name: str) -> None:
    fill = {"worker_id": "W-000000"} | {name: number}
    answer = judge({"kind": "fill", "artifact": {"order_id": number, "fills": [fill]}, "context": order()})
    for text in (number, number.replace(" ", "").replace("-", "")):
        assert text not in answer.text


@laws
@given(
    artifact=json_values, key=st.sampled_from(["type", "const", "pattern", "enum", "additionalProperties"])
)
def test_a_schema_finding_does_not_repeat_the_value(judge: Judge, artifact: Any, key: str) -> None:
    schema = {
        "type": {"type": "null"},
        "const": {"const": "Z" * 9},
        "pattern": {"type": "string", "pattern": "^Z{9}$"},
        "enum": {"enum": ["Z" * 9]},
        "additionalProperties": {"type": "object", "additionalProperties": False},
    }[key]
    body = {
        "kind": "json_schema",
        "artifact": {"a": artifact, "secret": "123-45-6789"},
        "context": {"schema": {"additionalProperties": schema}},
    }
    assert "123-45-6789" not in str([finding["message"] for finding in judge(body).json()["findings"]])
