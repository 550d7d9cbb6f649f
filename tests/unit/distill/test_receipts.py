"""Receipts: signed, chained, and never written over a chain that does not hold."""

import base64
import hashlib
import itertools
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.engine import dsse, keys, merkle, notes
from distill.engine.dsse import NotVerified
from distill.engine.keys import KeyUnusable, PublicKey
from distill.engine.receipts import (
    FOLDER,
    HEAD,
    PENDING,
    ChainBroken,
    NotConserved,
    Receipts,
    Written,
    material_of,
    product_of,
    read_receipt,
)
from services.audit import AuditLog
from services.errors import Conflict, PlatformError, Unavailable


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "runs-000001.jsonl").write_bytes(b"one\ntwo\nthr")
    return tmp_path


def write(data: Path, **changes: Any) -> Written:
    segment = data / "log" / "runs-000001.jsonl"
    arguments: dict[str, Any] = {
        "materials": [material_of(data, segment, end=8)],
        "products": [product_of(data, segment)],
        "counts": {"in": 2, "out": 1, "quarantined": 1},
        "config": {"source": "stillhouse"},
        "schema_versions": {"stillhouse.evidence": "1.0"},
        "started_at": datetime.now(UTC),
        **changes,
    }
    receipts = Receipts(data)
    receipts.prepare()
    return receipts.write("materialize", **arguments)


def public(data: Path) -> PublicKey:
    return PublicKey.load(keys.public_path(data))


def test_a_receipt_says_what_was_read_and_made(data: Path) -> None:
    receipt = read_receipt(write(data).content, public(data))
    (material,) = receipt.materials
    assert (material.uri, material.bytes, material.lines) == ("log/runs-000001.jsonl", 8, 2)
    assert material.sha256 == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert receipt.products[0].bytes == 11
    assert receipt.sequence == 1
    assert receipt.tool.packages.keys() >= {"cryptography", "orjson"}


def test_each_names_the_one_before_and_the_head_names_the_last(data: Path) -> None:
    first, second = write(data), write(data)
    assert read_receipt(second.content, public(data)).prev_receipt_sha256 == first.ref.sha256
    head = orjson.loads(
        dsse.open_sealed((data / FOLDER / HEAD).read_bytes(), dsse.HEAD, public(data)),
    )
    assert (head["count"], head["last"]["sha256"]) == (2, second.ref.sha256)
    assert (data / FOLDER / "000002-materialize.dsse.json").read_bytes() == second.content


def test_what_does_not_add_up_is_not_signed(data: Path) -> None:
    with pytest.raises(NotConserved, match="3 went in, 2 came out"):
        write(data, counts={"in": 3, "out": 2})
    assert list((data / FOLDER).glob("*")) == []


def test_a_crash_between_receipt_and_head_is_made_good(data: Path) -> None:
    write(data)
    head = (data / FOLDER / HEAD).read_bytes()
    write(data)
    (data / FOLDER / HEAD).write_bytes(head)
    assert write(data).ref.sequence == 3


def test_a_crash_in_the_very_first_receipt_is_made_good(data: Path) -> None:
    write(data)
    (data / FOLDER / HEAD).unlink()
    assert write(data).ref.sequence == 2


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("published", [True, False])
def test_a_crash_as_products_are_published_leaves_both_or_none(
    data: Path, published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = data / "made.jsonl"
    made.write_bytes(b"{}\n")
    product = product_of(data, made)
    made.unlink()

    def publish(content: bytes) -> None:
        if published:
            made.write_bytes(b"{}\n")
        assert b"payload" in content
        monkeypatch.setattr(Path, "unlink", _killed)
        monkeypatch.setattr(Path, "rename", _killed)
        if not published:
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        write(data, products=[product], publish=publish)
    monkeypatch.undo()
    assert write(data).ref.sequence == (2 if published else 1)
    assert not (data / FOLDER / PENDING).exists()


def test_nothing_is_vouched_for_that_could_not_be_published(data: Path) -> None:
    def publish(_: bytes) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write(data, publish=publish)
    assert list((data / FOLDER).glob("*")) == []


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BREAKS: dict[str, Callable[[Path], None]] = {
    "last receipt changed": lambda folder: _flip(folder / "000002-materialize.dsse.json"),
    "last receipt gone": lambda folder: (folder / "000002-materialize.dsse.json").unlink(),
    "head changed": lambda folder: _flip(folder / HEAD),
    "head gone": lambda folder: (folder / HEAD).unlink(),
    "key gone": lambda folder: (folder.parent / "keys" / keys.PRIVATE).unlink(),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_chain_is_not_continued(data: Path, name: str) -> None:
    for _ in range(2):
        write(data)
    BREAKS[name](data / FOLDER)
    before = sorted((data / FOLDER).iterdir())
    with pytest.raises(ChainBroken):
        write(data)
    assert sorted((data / FOLDER).iterdir()) == before


# --- keys -------------------------------------------------------------------------------------


def test_the_key_is_for_its_owner_and_is_never_overwritten(data: Path) -> None:
    made = keys.generate(data)
    assert stat.S_IMODE(keys.private_path(data).stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="not overwritten"):
        keys.generate(data)
    assert keys.load(data).public.id == made.id == public(data).id
    assert [path.name for path in keys.private_path(data).parent.iterdir() if path.name[0] == "."] == []
    (told,) = AuditLog(data).entries()
    assert (told["change"], told["subject"]) == ("signing_key_created", made.id)


def test_a_key_that_the_audit_log_cannot_be_told_of_is_not_made(data: Path) -> None:
    (data / "audit").write_text("not a folder")
    with pytest.raises(Unavailable, match="audit log"):
        keys.generate(data)
    assert list(keys.private_path(data).parent.iterdir()) == []


def test_two_processes_that_start_at_once_have_one_key(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, generate = keys.private_path(data), keys.generate
    monkeypatch.setattr(keys, "generate", lambda folder: (generate(folder), generate(folder)))
    assert Receipts(data).key().public.id == keys.load(data).public.id
    assert path.exists()


def test_a_key_that_others_can_read_is_refused(data: Path) -> None:
    keys.generate(data)
    keys.private_path(data).chmod(0o644)
    with pytest.raises(KeyUnusable, match="mode 0644"):
        keys.load(data)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 100])
def test_a_key_that_is_none_is_refused(data: Path, content: bytes) -> None:
    keys.generate(data)
    keys.private_path(data).write_bytes(content)
    with pytest.raises(KeyUnusable):
        keys.load(data)


def test_the_private_key_does_not_show(data: Path) -> None:
    keys.generate(data)
    assert repr(keys.load(data)) == f"SigningKey({public(data).id})"


# --- envelopes --------------------------------------------------------------------------------


def test_openssl_comes_to_the_same_signature(data: Path, tmp_path: Path) -> None:
    """Any tool that knows Ed25519 can verify a receipt: the encoding is DSSE's own, not ours."""
    envelope = orjson.loads(write(data).content)
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    try:
        done = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys.public_path(data), "-rawin",
             "-in", message, "-sigfile", signature],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_changed_byte_is_believed(data: Path) -> None:
    keys.generate(data)
    key = keys.load(data)
    sealed = dsse.seal(b"{}", dsse.HEAD, key)
    assert dsse.open_sealed(sealed, dsse.HEAD, key.public) == b"{}"
    for at, bit in itertools.product(range(len(sealed)), (0x01, 0x20)):
        changed = bytearray(sealed)
        changed[at] ^= bit
        with pytest.raises(NotVerified):
            dsse.open_sealed(bytes(changed), dsse.HEAD, key.public)


def test_one_kind_of_envelope_is_not_another(data: Path) -> None:
    written = write(data)
    with pytest.raises(NotVerified, match="another type"):
        dsse.open_sealed(written.content, dsse.HEAD, public(data))


def test_another_key_is_named(data: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "other")
    with pytest.raises(NotVerified) as raised:
        read_receipt(write(data).content, public(tmp_path / "other"))
    assert (raised.value.code, raised.value.found) == ("key_unknown", public(data).id)


def test_no_public_key_is_an_error_of_its_own(data: Path) -> None:
    with pytest.raises(PlatformError, match="no public key"):
        public(data)


# --- the tree ---------------------------------------------------------------------------------


def _by_the_book(entries: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    left, right = _by_the_book(entries[:split]), _by_the_book(entries[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_the_tree_is_that_of_the_rfc(entries: list[bytes]) -> None:
    assert merkle.root(entries) == _by_the_book(entries).hex()


# --- notes ------------------------------------------------------------------------------------


def test_a_note_is_believed_under_its_own_name_and_key_alone(data: Path, tmp_path: Path) -> None:
    keys.generate(data)
    note, other = data / "a.evidence", data / "b.evidence"
    notes.keep(data, note, {"sha256": "x", "lines": 3})
    assert notes.kept(data, note) == {"sha256": "x", "lines": 3}
    other.write_bytes(note.read_bytes())
    assert notes.kept(data, other) is None
    assert notes.kept(data, data / "none") is None
    keys.generate(tmp_path / "elsewhere")
    notes.keep(tmp_path / "elsewhere", note, {"sha256": "y"})
    assert notes.kept(data, note) is None
    _flip(other)
    assert notes.kept(data, other) is None


def test_no_note_is_left_without_a_key(data: Path) -> None:
    with pytest.raises(PlatformError, match="there is no key"):
        notes.keep(data, data / "a.evidence", {})
