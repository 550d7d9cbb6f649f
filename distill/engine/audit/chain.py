"""The chain of receipts: each signed, each naming the one before, the last one named by the head."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from distill.engine import dsse, receipts
from distill.engine.audit.history import History
from distill.engine.audit.report import Code, Report
from distill.engine.dsse import NotVerified
from distill.engine.keys import PublicKey
from distill.engine.receipts import FOLDER, HEAD, NotConserved
from schemas.canonical import content_id
from schemas.proof import Head, Receipt

SIGNING: Final[Mapping[str, Code]] = {
    "signature_invalid": "signature_invalid",
    "key_unknown": "key_unknown",
}

Anchor = tuple[int, str]
"""How many receipts there were when somebody noted it down, and the sha256 of the last of them."""


@dataclass(slots=True)
class Chain:
    """What the receipts that can be believed say, and the sha256 of every receipt file that is there."""

    history: History = field(default_factory=History)
    believed: int = 0
    sha256: dict[int, str] = field(default_factory=dict)
    head: Head | None = None


def read_chain(data: Path, key: PublicKey | None, anchor: Anchor | None, report: Report) -> Chain:
    """Verify every receipt and the head. Without a key nothing is believed but the order of the files."""
    folder, chain = data / FOLDER, Chain()
    _check_names(folder, report)
    for number, name in receipts.list_files(folder):
        report.checked["receipts"] += 1
        if number in chain.sha256:
            report.find("receipt_duplicate", _at(name), f"there is another receipt {number}")
            continue
        content = (folder / name).read_bytes()
        chain.sha256[number] = hashlib.sha256(content).hexdigest()
        receipt = _verified(name, content, key, report) if key else None
        if receipt is not None:
            _check_place(receipt, chain, report)
            _check_content(name, receipt, report)
            chain.history.add(receipt)
            chain.believed += 1
    _check_row(chain, report)
    chain.head = _read_head(folder, key, chain, report) if key else None
    if chain.head is not None:
        _check_head(chain.head, chain, report)
    if anchor is not None:
        _check_anchor(anchor, chain, report)
    return chain


def _at(name: str) -> str:
    return f"{FOLDER}/{name}"


def _check_names(folder: Path, report: Report) -> None:
    known = {HEAD, *(name for _, name in receipts.list_files(folder))}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name not in known and not path.name.startswith("."):
            report.find("file_unexpected", _at(path.name), "no receipt has such a name")


def _verified(name: str, content: bytes, key: PublicKey, report: Report) -> Receipt | None:
    """The receipt, if it is signed and under its own name."""
    try:
        receipt = receipts.read_receipt(content, key)
    except NotVerified as error:
        _refuse(name, error, report, "receipt_invalid")
        return None
    own = receipts.file_name(receipt.sequence, receipt.stage)
    if name == own:
        return receipt
    report.find(
        "receipt_misplaced", _at(name), "this receipt belongs under another name", expected=own, found=name
    )
    return None


def _check_place(receipt: Receipt, chain: Chain, report: Report) -> None:
    before = chain.sha256.get(receipt.sequence - 1)
    if before is not None and receipt.prev_receipt_sha256 != before:
        report.find(
            "chain_broken",
            _at(receipts.file_name(receipt.sequence, receipt.stage)),
            f"it follows another receipt {receipt.sequence - 1} than the one that is there",
            expected=receipt.prev_receipt_sha256,
            found=before,
        )


def _refuse(name: str, error: NotVerified, report: Report, otherwise: Code) -> None:
    report.find(
        SIGNING.get(error.code, otherwise),
        _at(name),
        error.message,
        expected=error.expected,
        found=error.found,
    )


def _check_content(name: str, receipt: Receipt, report: Report) -> None:
    """What a receipt says of itself: a defect of the writer, or the work of somebody who has the key."""
    try:
        receipts.check_conserved(receipt.stage, receipt.counts)
    except NotConserved as error:
        report.find("counts_not_conserved", _at(name), error.message)
    own = (receipt.config_hash, receipt.products_merkle_root)
    made = (content_id(receipt.config), receipts.products_root(receipt.products))
    if own != made:
        report.find("receipt_inconsistent", _at(name), "its own hashes are others", expected=own, found=made)


def _check_row(chain: Chain, report: Report) -> None:
    last = max(chain.sha256, default=0)
    for number in range(1, last):
        if number not in chain.sha256:
            report.find("receipt_missing", FOLDER, f"receipt {number} is missing", expected=number)


def _read_head(folder: Path, key: PublicKey, chain: Chain, report: Report) -> Head | None:
    try:
        content = (folder / HEAD).read_bytes()
    except FileNotFoundError:
        if chain.sha256:
            report.find("head_missing", _at(HEAD), "there are receipts and no head")
        return None
    try:
        return Head.model_validate_json(dsse.open_sealed(content, dsse.HEAD, key))
    except NotVerified as error:
        _refuse(HEAD, error, report, "head_invalid")
    except ValidationError:
        report.find("head_invalid", _at(HEAD), "it is signed and says nothing that a head says")
    return None


def _check_head(head: Head, chain: Chain, report: Report) -> None:
    last = max(chain.sha256, default=0)
    if last < head.count:
        for number in range(last + 1, head.count + 1):
            report.find("receipt_missing", FOLDER, f"receipt {number} was taken off the end", expected=number)
    elif last > head.count:
        report.find(
            "head_behind",
            _at(HEAD),
            "receipts lie behind the head: it was rolled back, or distill was killed as it wrote the last one"
            " (its next start or stage then mends that)",
            expected=last,
            found=head.count,
        )
    named = chain.sha256.get(head.count)
    if named is not None and named != head.last.sha256:
        report.find(
            "head_differs",
            _at(HEAD),
            f"receipt {head.count} is not the one that the head names",
            expected=head.last.sha256,
            found=named,
        )


def _check_anchor(anchor: Anchor, chain: Chain, report: Report) -> None:
    count, sha256 = anchor
    found = chain.sha256.get(count)
    if found != sha256:
        report.find(
            "anchor_differs",
            FOLDER,
            f"receipt {count} is not the one that was noted down: the chain was rewritten or cut short",
            expected=sha256,
            found=found or "none",
        )
