"""Proof: what a stage vouches for with its signature, and what an audit found of it."""

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.base import JsonObject, Model, Timestamp
from schemas.evidence import Count, ProductFile, Sha256
from schemas.records import Record

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:stillhouse:receipt:v1"

Sequence = Annotated[int, Field(ge=1)]


class Material(Model):
    """Bytes that a stage read: from `first_offset` up to `last_offset`, of a file that may have grown since.

    `uri` is the path below the data folder, or an absolute one for a file that lies elsewhere. `sha256`,
    `bytes` and `lines` are of these bytes alone.
    """

    uri: str
    sha256: Sha256
    bytes: Count
    lines: Count
    first_offset: Count = 0
    last_offset: Count

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.last_offset - self.first_offset != self.bytes:
            raise ValueError("`bytes` is not `last_offset` less `first_offset`")
        return self


class Tool(Model):
    """The code that ran. `code_sha256` covers every source file that takes part in a stage."""

    name: str
    version: str
    code_sha256: Sha256
    python: str
    packages: dict[str, str]


class Receipt(Record):
    """`stillhouse.receipt`: one run of a stage, the predicate of a signed in-toto statement.

    `counts["in"]` is the sum of all other counts: every input ended in exactly one outcome. `products` are
    the files that stand after the run, named by their path below the data folder, and the subjects of the
    statement; `products_merkle_root` is the RFC 6962 tree over their canonical form, in the order of names.
    `prev_receipt_sha256` is over the file of the receipt before this one; only the first has none.
    """

    schema_id: ClassVar[str] = "stillhouse.receipt"

    sequence: Sequence
    stage: str
    tool: Tool
    config: JsonObject
    config_hash: Sha256
    schema_versions: dict[str, str]
    policy_version: str | None = None
    materials: list[Material]
    products: list[ProductFile]
    products_merkle_root: Sha256
    counts: dict[str, Count]
    seed: int | None = None
    started_at: Timestamp
    finished_at: Timestamp
    prev_receipt_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _check_first(self) -> Self:
        if (self.sequence == 1) != (self.prev_receipt_sha256 is None):
            raise ValueError("the first receipt has no `prev_receipt_sha256`, and every other has one")
        return self


class Subject(Model):
    """A product, as in-toto names it."""

    name: str
    digest: dict[str, str]


class Statement(Model):
    """An in-toto Statement v1 about one run of a stage."""

    model_config = {"validate_by_name": True, "validate_by_alias": True, "serialize_by_alias": True}

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: list[Subject]
    predicate_type: Literal["urn:stillhouse:receipt:v1"] = Field(PREDICATE_TYPE, alias="predicateType")
    predicate: Receipt


class Signature(Model):
    """`keyid` is the sha256 of the public key's DER form; `sig` is base64."""

    keyid: str
    sig: str


class Envelope(Model):
    """A DSSE envelope. What is signed is the payload's bytes, base64 here, together with their type."""

    model_config = {"validate_by_name": True, "validate_by_alias": True, "serialize_by_alias": True}

    payload_type: str = Field(alias="payloadType")
    payload: str
    signatures: list[Signature]


class ReceiptRef(Model):
    """A receipt by its file in `distill/receipts/`, and the sha256 of that file."""

    sequence: Sequence
    file: str
    sha256: Sha256


class Head(Model):
    """The end of the chain, signed apart, so that a receipt taken off the end is missed."""

    count: Count
    last: ReceiptRef
    signed_at: Timestamp


# --- audit ------------------------------------------------------------------------------------

AuditOutcome = Literal["vouched", "partially_vouched", "broken"]


class AuditFinding(Model):
    """Something that is not as it was signed. `line` counts from 1, `offset` is in bytes."""

    code: str
    file: str
    message: str
    line: int | None = None
    offset: int | None = None
    expected: str | None = None
    found: str | None = None


class Unchecked(Model):
    """Something that could not be checked, and why."""

    code: str
    file: str
    message: str


class Audit(Record):
    """`stillhouse.audit`: what an audit looked at and what it found.

    `vouched`: everything was there and as signed. `partially_vouched`: nothing contradicts, but something
    could not be checked. `broken`: at least one finding. `checked` counts what was looked at; links are
    sampled with `seed` unless `sample` is null. `head` and `key_id` are what to keep elsewhere: who holds
    both can tell a chain that was cut short or rewritten from the whole one.
    """

    schema_id: ClassVar[str] = "stillhouse.audit"

    outcome: AuditOutcome
    key_id: str | None
    head: Head | None
    sample: Count | None
    seed: int
    checked: dict[str, Count]
    findings: list[AuditFinding]
    findings_left_out: Count = 0
    unchecked: list[Unchecked]
