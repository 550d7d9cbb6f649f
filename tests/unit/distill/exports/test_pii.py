import contextlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.exports.personal import look, names_in, spans
from distill.engine.exports.pii import Scanner
from distill.engine.exports.targets import Row, Unfit
from schemas.distill import PiiPolicy

CARD = "4111 1111 1111 1111"
PERSONAL = {
    "ssn": ["123-45-6789", "SSN 123456789", "123 45 6789", "912-72-1234", "123\u201145\u20116789"],
    "card": [CARD, "4111111111111111", "5500-0055-5555-5559", "3782 822463 10005"],
    "bank": [
        "routing number 021000021",
        "bank account 12345678",
        "account number: 12-34-56-78",
        "GB82 WEST 1234 5698 7654 32",
        "DE89370400440532013000",
    ],
    "phone": ["312-555-0142", "(312) 555-0142", "+1 312.555.0142", "call 3125550142", "+44 20 7946 0958"],
    "email": ["maria.lopez@example.com", "m@sub.example.co.uk", "josé@exämple.org"],
}
HARMLESS = [
    "Order ORD-2026-000123 on 2026-11-02 10:00:00",
    "3 x forklift at 18.50, shift 06:00-14:30, zip 60601-1234",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "1730541600 seconds, 1,000,000 runs, version 10.11.12",
    "W-10023, W-10024 and W-10025",
    "000-12-3456 and 666-12-3456 and 123-00-4567",
    "Dear team, hello world",
]
POLICY = PiiPolicy()


def row(text: str) -> Row:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"got {text}"}]}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts]
)
def test_each_class_is_found_and_masked_alike_in_the_whole_row(kind: str, text: str) -> None:
    assert [one.kind for one in spans(f"It is {text}, they said.")] == [kind]
    cleaned, masked = Scanner(POLICY).clean(row(f"It is {text}, they said."))
    assert masked == 1
    said = [message["content"] for message in cleaned["messages"]]
    assert all(f"[{kind.upper()}_1]" in one for one in said)
    digits = "".join(one for one in text if one.isdigit())
    assert not digits or digits not in orjson.dumps(cleaned).decode()


@pytest.mark.parametrize("text", HARMLESS)
def test_ids_dates_and_amounts_are_let_through(text: str) -> None:
    made = row(text)
    assert Scanner(POLICY).clean(made) == (made, 0)


def test_names_are_masked_wherever_the_row_has_them() -> None:
    text = 'Fill: {"worker_id": "W-1", "name": "Maria Lopez"}. Ask Maria Lopez; not Maria Lopezova.'
    cleaned, masked = Scanner(POLICY).clean(row(text))
    assert masked == 1
    assert (
        '"name": "[NAME_1]"}. Ask [NAME_1]; not Maria Lopezova.'
        in orjson.loads(orjson.dumps(cleaned))["messages"][0]["content"]
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Hi Maria, your shift", ["Maria"]),
        ("Dear Mr. O'Neil Smith,", ["O'Neil Smith"]),
        ("Worker: Ana de la Cruz", []),
        ("Recipient: Ana Cruz", ["Ana Cruz"]),
        ('{"first_name":"José","lastName":"Núñez"}', ["José", "Núñez"]),
        ("Dear Hiring Manager", []),
        ("Hi there", []),
    ],
)
def test_names_are_those_that_the_text_calls_so(text: str, names: list[str]) -> None:
    assert sorted(set(names_in(text))) == sorted(names)


@pytest.mark.parametrize("kind", ["ssn", "card", "bank", "phone", "email"])
def test_a_policy_may_leave_the_row_out(kind: str) -> None:
    scanner = Scanner(PiiPolicy.model_validate({kind: "quarantine"}))
    with pytest.raises(Unfit) as caught:
        scanner.clean(row(PERSONAL[kind][0]))
    assert caught.value.code == f"pii.{kind}"
    assert not any(character.isdigit() for character in caught.value.detail)


def test_addresses_may_be_kept_but_numbers_of_people_may_not() -> None:
    kept = Scanner(PiiPolicy(phone="keep", email="keep", name="keep"))
    made = row('"name": "Ann Lee", 312-555-0142, a@b.co')
    assert kept.clean(made) == (made, 0)
    for kind in ("ssn", "card", "bank"):
        with pytest.raises(ValueError, match="mask"):
            PiiPolicy.model_validate({kind: "keep"})


def test_json_stays_json_when_a_bare_number_is_masked() -> None:
    cleaned, _ = Scanner(POLICY).clean(row('{"phone": 3125550142, "n": 1}'))
    content = orjson.loads(orjson.dumps(cleaned))["messages"][0]["content"]
    assert orjson.loads(content) == {"phone": "[PHONE_1]", "n": 1}


@pytest.mark.parametrize("value", [{"a@b.co": 1}, {"n": 4111111111111111}])
def test_keys_and_numbers_cannot_be_masked_and_are_refused(value: dict[str, object]) -> None:
    made: Row = {"tools": [value]}
    with pytest.raises(Unfit, match="cannot be masked"):
        Scanner(POLICY).clean(made)


pieces = st.lists(
    st.one_of(
        st.sampled_from([text for texts in PERSONAL.values() for text in texts] + HARMLESS),
        st.text(max_size=12),
        st.sampled_from(['"', "\\", "\n", "\t", " ", "Hi Ann", '"name":"Bo Li"']),
        st.from_regex(r"[0-9() .\-]{1,20}", fullmatch=True),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=150)
@given(pieces)
def test_the_quick_look_misses_nothing_and_nothing_is_left_after_masking(text: str) -> None:
    made = row(text)
    if spans(text) or any(names_in(text)):
        assert look(text)
    with contextlib.suppress(Unfit):  # what cannot be masked is left out
        cleaned, masked = Scanner(POLICY).clean(made)
        left = [message["content"] for message in cleaned["messages"]]
        assert not any(spans(one) for one in left)
        assert masked == 0 or cleaned != made
