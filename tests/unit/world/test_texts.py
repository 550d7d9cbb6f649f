"""Orders, notes and drafts: what the gate, the retriever and the message checks are tried on."""

import re
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from rapidfuzz import fuzz

from schemas.artifacts import EmailDraft, SmsDraft
from stillhouse.world import Spec, World, generate
from stillhouse.world.catalogue import ROLES, role_named
from stillhouse.world.messages import DEFECTS
from stillhouse.world.places import markets

Row = dict[str, Any]


def test_orders_lie_ahead_in_the_offset_of_their_site(world: World) -> None:
    zones = {(city.name, city.state): city.zone for city in markets(world.spec.workers)}
    assert len(world.orders) == len({order.order_id for order in world.orders}) == 200
    for order in world.orders:
        zone: ZoneInfo = zones[order.city, order.state]
        for moment in (order.start, order.end):
            assert moment.utcoffset() == moment.astimezone(zone).utcoffset()
        assert timedelta(hours=7) < order.end - order.start < timedelta(days=5)
        assert order.start.date() > world.spec.as_of
        assert order.required_certs == list(role_named(order.role).certs)
        assert order.age_min == role_named(order.role).age_min
    assert len({order.role for order in world.orders}) > 25
    assert any(order.start.date() != order.end.date() for order in world.orders)


def test_each_group_of_notes_is_one_text_in_the_words_of_every_role(world: World) -> None:
    groups = defaultdict(list)
    for note in world.playbooks:
        groups[note.group].append(note)
        assert note.role in note.text
        assert note.city in note.text
    assert len(world.playbooks) == len({note.id for note in world.playbooks}) == 12 * len(ROLES)
    for notes in groups.values():
        assert [note.role for note in notes] == [role.name for role in ROLES]
        assert len({note.text for note in notes}) == len(ROLES)
        forklift, reach = notes[0].text, notes[1].text
        assert fuzz.ratio(forklift, reach) > 80
    assert sum(note.role == "forklift operator" and note.city == "Toledo" for note in world.playbooks) >= 3


def test_good_and_bad_drafts_alternate_and_every_defect_occurs(world: World) -> None:
    assert len(world.messages) == 240
    assert [message.defect is None for message in world.messages] == [True, False] * 120
    assert {(message.kind, message.defect) for message in world.messages if message.defect} == set(DEFECTS)
    codes = Counter(message.defect for message in world.messages if message.defect)
    assert {"content.placeholder", "content.pii_ssn", "content.pay_disclosure", "sms.too_long"} <= set(codes)
    for message in world.messages:
        (EmailDraft if message.kind == "email" else SmsDraft).model_validate(message.artifact)
        assert message.context["audience"] in {"worker", "client"}


def _addressee(message: Any, by_id: dict[str, Row]) -> tuple[str, str]:
    """Where a draft has to go, and the name it has to use."""
    recipient = message.context["recipient"]
    if "worker_id" not in recipient:
        return recipient["email"], recipient["name"].split()[0]
    worker = by_id[recipient["worker_id"]]
    return (worker["phone"] if message.kind == "sms" else worker["email"]), worker["first_name"]


def test_good_drafts_are_good(workers: list[Row]) -> None:
    by_id = {worker["worker_id"]: worker for worker in workers}
    good = [message for message in generate(Spec(messages=1_200)).messages if message.defect is None]
    for message in good:
        address, name = _addressee(message, by_id)
        body: str = message.artifact["body"]
        assert message.artifact["to"] in (address, [address])
        assert re.match(rf"(Hi|Hello) {re.escape(name)}[, ]", body)
        assert not re.search(r"[\[\]{}<>$@]|\d{5}|SSN|an hour", body)
        assert all("example.com/" in link for link in re.findall(r"https?://\S+", body))
        if message.kind == "sms":
            assert len(body) <= (160 if body.isascii() else 70)
            assert phonenumbers.is_valid_number(phonenumbers.parse(address))
            assert not message.context["opted_out"]
            assert ("STOP" in body) == message.context["first_contact"]
        else:
            assert 0 < len(message.artifact["subject"]) <= 78
    assert any(not message.artifact["body"].isascii() for message in good if message.kind == "sms")


def test_bad_drafts_have_the_defect_they_are_labelled_with(world: World, workers: list[Row]) -> None:
    by_id = {worker["worker_id"]: worker for worker in workers}
    for message in world.messages:
        if message.defect is not None:
            assert _shows(message, *_addressee(message, by_id)), message


def _is_number(text: str) -> bool:
    return phonenumbers.is_valid_number(phonenumbers.parse(text))


def _shows(message: Any, address: str, name: str) -> bool:
    artifact, context = message.artifact, message.context
    body, subject = artifact["body"], artifact.get("subject", "")
    signs: dict[str, Any] = {
        "content.placeholder": re.search(r"\{\{|\$\{|\[S|<S", body),
        "content.pii_ssn": re.search(r"\b[78]\d\d-\d\d-\d{4}\b", body),
        "content.pii_card": re.search(r"\d{4} \d{4,6} \d{4,5}", body),
        "content.pii_bank": "021000021" in body,
        "content.pay_disclosure": re.search(r"\$\d\d\.50 an hour", body),
        "content.url_not_allowed": "example.net/login" in body,
        "content.discriminatory": re.search(r"young men|No women|no women|over 40", body),
        "email.address_invalid": artifact.get("cc"),
        "email.address_homograph": not "".join(artifact.get("cc", [])).isascii(),
        "email.recipient_mismatch": artifact["to"] != [address],
        "email.header_injection": "\r\n" in subject
        or any("\x0b" in value for value in artifact.get("headers", {}).values()),
        "email.subject_missing": not subject.strip(),
        "email.subject_too_long": len(subject) > 998,
        "email.body_missing": not body.strip(),
        "email.name_mismatch": name not in body.partition(",")[0],
        "sms.number_invalid": message.kind == "sms" and not _is_number(artifact["to"]),
        "sms.body_missing": not body.strip(),
        "sms.too_long": len(body) > (160 if body.isascii() else 70),
        "sms.recipient_mismatch": artifact["to"] != address,
        "sms.name_mismatch": name not in body.partition(",")[0],
        "sms.opted_out": context.get("opted_out"),
        "sms.opt_out_missing": context.get("first_contact") and "STOP" not in body,
    }
    # A text that is too long besides would be labelled with half of its faults.
    fits = message.kind == "email" or message.defect == "sms.too_long" or len(body) <= 160
    return bool(signs[message.defect]) and fits


def test_worlds_without_notes_and_messages_are_worlds() -> None:
    bare = generate(Spec(workers=50, orders=1, notes_per_role=0, messages=0))
    assert (bare.playbooks, bare.messages, len(bare.orders)) == ((), (), 1)
