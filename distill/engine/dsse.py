"""DSSE envelopes: bytes with a type, signed as they are, so that verifying needs no canonical form."""

import base64
from typing import Final

from distill.engine.keys import PublicKey, SigningKey
from schemas.canonical import canonical_bytes
from schemas.proof import Envelope, Signature

STATEMENT: Final = "application/vnd.in-toto+json"
HEAD: Final = "application/vnd.stillhouse.receipts-head+json"


class NotVerified(Exception):
    """The envelope does not hold what the key signed. `code` says in which way."""

    def __init__(
        self, code: str, message: str, *, expected: str | None = None, found: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.expected = expected
        self.found = found


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """The envelope as one line of canonical JSON."""
    signature = key.sign(_signed(payload_type, payload))
    envelope = Envelope(
        payload_type=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=[Signature(keyid=key.public.id, sig=base64.b64encode(signature).decode())],
    )
    return _line(envelope)


def open_sealed(content: bytes, payload_type: str, key: PublicKey) -> bytes:
    """The payload of an envelope that `key` signed. Raises `NotVerified`."""
    try:
        envelope = Envelope.model_validate_json(content)
        payload = _decoded(envelope.payload)
        signatures = {one.keyid: _decoded(one.sig) for one in envelope.signatures}
    except ValueError:
        raise NotVerified("envelope_invalid", "this is not a DSSE envelope") from None
    if _line(envelope) != content:  # a file that says the same in other bytes has been touched
        raise NotVerified("envelope_invalid", "the envelope is not in the form that it was written in")
    if envelope.payload_type != payload_type:
        raise NotVerified(
            "payload_type",
            "the payload is of another type",
            expected=payload_type,
            found=envelope.payload_type,
        )
    signature = signatures.get(key.id)
    if signature is None:
        raise NotVerified(
            "key_unknown", "another key signed this", expected=key.id, found=", ".join(signatures) or "none"
        )
    if not key.verifies(signature, _signed(payload_type, payload)):
        raise NotVerified("signature_invalid", "the signature is not one over this payload")
    return payload


def _line(envelope: Envelope) -> bytes:
    return canonical_bytes(envelope.model_dump(mode="json")) + b"\n"


def _decoded(text: str) -> bytes:
    """Base64 in its one canonical spelling. Raises `ValueError` for any other."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("bits that mean nothing are set")
    return content


def _signed(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: lengths keep type and payload apart."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
