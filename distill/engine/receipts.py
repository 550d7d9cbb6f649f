"""Receipts: every run of a stage signs what it read, what it made and how many, chained to the run before.

`distill/receipts/NNNNNN-<stage>.dsse.json` are the links, `HEAD.dsse.json` names the last of them. Times and
the machine stand here and nowhere else, so that products stay the same bytes on every machine.
"""

import contextlib
import hashlib
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError

from distill.engine import dsse, keys, merkle
from distill.engine.dsse import NotVerified
from distill.engine.keys import PublicKey, SigningKey
from schemas.canonical import canonical_bytes, content_id
from schemas.evidence import ProductFile
from schemas.proof import Head, Material, Receipt, ReceiptRef, Statement, Subject, Tool
from services import files
from services.errors import Conflict, PlatformError

log = structlog.get_logger(__name__)

FOLDER: Final = "distill/receipts"
HEAD: Final = "HEAD.dsse.json"
PENDING: Final = ".pending"
NAME: Final = re.compile(r"([0-9]{6,})-([a-z]+)\.dsse\.json")
CODE: Final = ("distill", "schemas", "services")
PACKAGES: Final = ("cryptography", "numpy", "orjson", "pydantic", "rfc8785")


class ChainBroken(PlatformError):
    """The receipts are not as they were signed; another one behind them would only hide that."""

    code = "receipts_broken"


class NotConserved(PlatformError):
    """Inputs went missing, or came from nowhere: the stage must not be vouched for."""

    code = "counts_not_conserved"


@dataclass(frozen=True, slots=True)
class Written:
    """A receipt that is in the chain. `content` is the file's bytes, to be laid beside a product."""

    ref: ReceiptRef
    content: bytes


class Receipts:
    """The chain of one data folder. One process writes it: whoever holds the log. Everything here blocks."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.folder = data / FOLDER

    def key(self) -> SigningKey:
        """The key, made when there is neither one nor anything signed. Harmless while another process works.

        Raises `ChainBroken` when there are receipts and no key, and `KeyUnusable`.
        """
        if not keys.private_path(self._data).exists():
            if any(self.folder.glob("*.dsse.json")):
                raise ChainBroken(
                    f"{keys.private_path(self._data)} is missing, and there are receipts that it signed;"
                    " put it back, or move the receipts away to begin a new chain"
                )
            with contextlib.suppress(Conflict):  # another process was faster
                log.info("key made", key_id=keys.generate(self._data).id)
        key = keys.load(self._data)
        if not keys.public_path(self._data).exists():
            files.replace(keys.public_path(self._data), key.public.pem.encode(), mode=0o644)
        return key

    def prepare(self) -> PublicKey:
        """Have a key, and finish what a crash left of a receipt. Only for who alone runs stages here.

        Raises `ChainBroken` and `KeyUnusable`. Call it before the work, so that none is done in vain.
        """
        key = self.key()
        self._settle(key)
        self._head(key)
        return key.public

    def write(
        self,
        stage: str,
        *,
        materials: Sequence[Material],
        products: Sequence[ProductFile],
        counts: Mapping[str, int],
        config: Mapping[str, Any],
        schema_versions: Mapping[str, str],
        started_at: datetime,
        policy_version: str | None = None,
        seed: int | None = None,
        publish: Callable[[bytes], None] | None = None,
    ) -> Written:
        """Sign a run of a stage and put it at the end of the chain; returns when it is on the medium.

        Products are named by their path below the data folder, all those that stand after the run, made by
        this run or kept from an earlier one. `publish` gives them their names in one step, and is handed the
        receipt's bytes to lay beside them: a crash then leaves either both of products and receipt or none.
        Raises `NotConserved`, `ChainBroken` and `KeyUnusable`, and what `publish` raises.
        """
        check_conserved(stage, counts)
        key = keys.load(self._data)
        head = self._head(key)
        named = sorted(products, key=lambda product: product.name)
        receipt = Receipt(
            sequence=head.count + 1 if head else 1,
            stage=stage,
            tool=tool(),
            config=dict(config),
            config_hash=content_id(dict(config)),
            schema_versions=dict(schema_versions),
            policy_version=policy_version,
            materials=sorted(materials, key=lambda material: (material.uri, material.first_offset)),
            products=named,
            products_merkle_root=products_root(named),
            counts=dict(counts),
            seed=seed,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            prev_receipt_sha256=head.last.sha256 if head else None,
        )
        content = dsse.seal(_statement(receipt), dsse.STATEMENT, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        files.replace(self.folder / PENDING, content)
        if publish is not None:
            try:
                publish(content)
            except BaseException:
                (self.folder / PENDING).unlink()
                raise
        return Written(self._append(key, receipt, content), content)

    def _append(self, key: SigningKey, receipt: Receipt, content: bytes) -> ReceiptRef:
        """Make the pending receipt the last one."""
        name = file_name(receipt.sequence, receipt.stage)
        (self.folder / PENDING).rename(self.folder / name)
        files.sync_folder(self.folder)
        ref = _ref(receipt.sequence, name, content)
        self._write_head(key, ref)
        return ref

    def _settle(self, key: SigningKey) -> None:
        """Decide on a receipt that a crash left pending: it counts if its products were published."""
        try:
            content = (self.folder / PENDING).read_bytes()
        except FileNotFoundError:
            return
        head = self._head(key)
        try:
            receipt = read_receipt(content, key.public)
        except NotVerified:
            receipt = None
        follows = (head.count + 1, head.last.sha256) if head else (1, None)
        if (
            receipt is not None
            and (receipt.sequence, receipt.prev_receipt_sha256) == follows
            and all(_is_there(self._data, product) for product in receipt.products)
        ):
            ref = self._append(key, receipt, content)
            log.warning("receipt finished after a crash", receipt=ref.file)
        else:
            (self.folder / PENDING).unlink()

    # --- the head -----------------------------------------------------------------------------

    def _head(self, key: SigningKey) -> Head | None:
        """The head, brought up to a receipt that a crash left without one. Raises `ChainBroken`."""
        head = self._read_head(key.public)
        following = head.count + 1 if head else 1
        beyond = [name for number, name in list_files(self.folder) if number >= following]
        if not beyond:
            return head
        if len(beyond) > 1:
            raise ChainBroken(f"{len(beyond)} receipts lie behind the end of the chain; audit says which")
        ref = self._adoptable(beyond[0], following, head, key.public)
        log.warning("receipt finished after a crash", receipt=ref.file)
        return self._write_head(key, ref)

    def _read_head(self, key: PublicKey) -> Head | None:
        try:
            content = (self.folder / HEAD).read_bytes()
        except FileNotFoundError:
            return None
        try:
            head = Head.model_validate_json(dsse.open_sealed(content, dsse.HEAD, key))
            last = (self.folder / head.last.file).read_bytes()
        except (NotVerified, ValidationError, FileNotFoundError) as error:
            raise ChainBroken(f"{HEAD} does not hold: {error}; audit says more") from None
        if hashlib.sha256(last).hexdigest() != head.last.sha256:
            raise ChainBroken(f"{head.last.file} is not what {HEAD} names; audit says more")
        return head

    def _adoptable(self, name: str, following: int, head: Head | None, key: PublicKey) -> ReceiptRef:
        content = (self.folder / name).read_bytes()
        try:
            receipt = read_receipt(content, key)
        except NotVerified as error:
            raise ChainBroken(f"{name} lies behind the end of the chain: {error.message}") from None
        before = head.last.sha256 if head else None
        if (receipt.sequence, receipt.prev_receipt_sha256) != (following, before):
            raise ChainBroken(f"{name} does not follow the end of the chain; audit says more")
        return _ref(following, name, content)

    def _write_head(self, key: SigningKey, last: ReceiptRef) -> Head:
        head = Head(count=last.sequence, last=last, signed_at=datetime.now(UTC))
        payload = canonical_bytes(head.model_dump(mode="json"))
        files.replace(self.folder / HEAD, dsse.seal(payload, dsse.HEAD, key))
        return head


# --- shared with the audit --------------------------------------------------------------------


def check_conserved(stage: str, counts: Mapping[str, int]) -> None:
    """Raise `NotConserved` unless every input ended in exactly one outcome."""
    outcomes = sum(count for name, count in counts.items() if name != "in")
    if counts.get("in") != outcomes:
        raise NotConserved(f"{stage}: {counts.get('in')} went in, {outcomes} came out: {dict(counts)}")


def read_receipt(content: bytes, key: PublicKey) -> Receipt:
    """The receipt in an envelope that `key` signed. Raises `NotVerified`."""
    payload = dsse.open_sealed(content, dsse.STATEMENT, key)
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        raise NotVerified(
            "statement_invalid", f"not a statement of ours: {error.error_count()} errors"
        ) from None
    if statement.subject != _subjects(statement.predicate):
        raise NotVerified("subjects_differ", "the subjects are not the products of the receipt")
    return statement.predicate


def list_files(folder: Path) -> list[tuple[int, str]]:
    """The receipts of a folder, by number."""
    if not folder.is_dir():
        return []
    found = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match[1]), match[0]) for match in found if match)


def file_name(sequence: int, stage: str) -> str:
    return f"{sequence:06d}-{stage}.dsse.json"


def products_root(products: Sequence[ProductFile]) -> str:
    return merkle.root([canonical_bytes(product.model_dump(mode="json")) for product in products])


def _statement(receipt: Receipt) -> bytes:
    statement = Statement(subject=_subjects(receipt), predicate=receipt)
    return canonical_bytes(statement.model_dump(mode="json"))


def _subjects(receipt: Receipt) -> list[Subject]:
    return [Subject(name=one.name, digest={"sha256": one.sha256}) for one in receipt.products]


def _is_there(data: Path, product: ProductFile) -> bool:
    try:
        return (data / product.name).stat().st_size == product.bytes
    except FileNotFoundError:
        return False


def _ref(sequence: int, name: str, content: bytes) -> ReceiptRef:
    return ReceiptRef(sequence=sequence, file=name, sha256=hashlib.sha256(content).hexdigest())


@lru_cache(maxsize=1)
def tool() -> Tool:
    """The code of this process. Its sources are hashed, since a wheel or an image knows no commit."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (root / name).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        digest.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return Tool(
        name="stillhouse-distill",
        version=_version("stillhouse") or "tree",
        code_sha256=digest.hexdigest(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def material_of(data: Path, path: Path, *, end: int | None = None) -> Material:
    """Hash what a stage read of a file, up to byte `end`. Blocks for as long as reading it takes."""
    digest, lines, size = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20 if end is None else min(1 << 20, end - size)):
            digest.update(chunk)
            lines += chunk.count(b"\n")
            size += len(chunk)
    uri = path.relative_to(data).as_posix() if path.is_relative_to(data) else str(path)
    return Material(uri=uri, sha256=digest.hexdigest(), bytes=size, lines=lines, last_offset=size)


def product_of(data: Path, path: Path) -> ProductFile:
    """Hash a finished file, and name it as receipts do. Blocks for as long as reading it takes."""
    made = material_of(data, path)
    return ProductFile(name=made.uri, sha256=made.sha256, lines=made.lines, bytes=made.bytes)
