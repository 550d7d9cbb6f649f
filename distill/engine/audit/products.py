"""Products: every file that the last runs vouch for is there, is the same, and has no company."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from distill.engine.audit.hashing import OnBytes, Part, whole
from distill.engine.audit.history import NOT_PRODUCTS, ROOTS, History, Vouched, folder_of, is_made
from distill.engine.audit.report import Report
from distill.engine.places import DATASETS, RECEIPT
from schemas.evidence import ProductFile

Locate = Callable[[str], None]
"""Adds findings that say where in a differing file the difference is, as far as can be told."""


def check_products(
    data: Path, vouched: Mapping[str, Vouched], report: Report, on_bytes: OnBytes, locate: Locate
) -> None:
    owners = {one.product.sha256: name for name, one in vouched.items()}
    for name, one in sorted(vouched.items()):
        report.checked["products"] += 1
        path = inside(data, name)
        if path is None:
            report.find(
                "receipt_inconsistent", name, f"receipt {one.sequence} names a path that is none of ours"
            )
            continue
        try:
            found = whole(path, on_bytes)
        except FileNotFoundError:
            report.find(
                "product_missing", name, f"receipt {one.sequence} vouches for it", expected=one.product.sha256
            )
            continue
        if _differs(one.product, found):
            _report(one, found, owners.get(found.sha256), report)
            locate(name)


def _differs(product: ProductFile, found: Part) -> bool:
    lines = found.lines if product.name.endswith(".jsonl") else product.lines
    return (product.sha256, product.bytes, product.lines) != (found.sha256, found.bytes, lines)


def _report(one: Vouched, found: Part, owner: str | None, report: Report) -> None:
    product = one.product
    what = f"it holds what {owner} should hold" if owner else "it is not what was signed"
    if found.lines != product.lines and product.name.endswith(".jsonl"):
        what += f", with {found.lines} lines where there were {product.lines}"
    report.find(
        "product_differs",
        product.name,
        f"{what} (receipt {one.sequence})",
        expected=product.sha256,
        found=found.sha256,
    )


def inside(data: Path, name: str) -> Path | None:
    """The file of a name, or None for one that leads out of the data folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        return None
    return data / path


def check_company(data: Path, vouched: Mapping[str, Vouched], report: Report) -> None:
    """Find files that nobody vouches for where products lie."""
    folders = {folder_of(name) for name in vouched}
    for name in _files(data):
        if name in vouched or (name.endswith(f"/{RECEIPT}") and folder_of(name) in folders):
            continue
        report.find("file_unexpected", name, "no receipt vouches for it")


def _files(data: Path) -> Iterator[str]:
    for root in ROOTS:
        yield from _below(data, data / root)


def _below(data: Path, folder: Path) -> Iterator[str]:
    """Files below a folder, but for what an interrupted write left, which nothing reads."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.relative_to(data).as_posix()
        if name in NOT_PRODUCTS or path.name.startswith(".") or path.name.endswith(".tmp"):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _below(data, path)
        else:
            yield name


def check_custody(history: History, report: Report) -> None:
    """What a stage read of another stage's products must have been made by a run that vouches for it."""
    for receipt in history.in_order():
        for material in receipt.materials:
            if is_made(material.uri) and (material.uri, material.sha256) not in history.made:
                report.find(
                    "material_unvouched",
                    material.uri,
                    f"receipt {receipt.sequence} ({receipt.stage}) read it in a state nobody vouches for",
                    found=material.sha256,
                )


def check_copies(
    data: Path, sha256: Mapping[int, str], vouched: Mapping[str, Vouched], report: Report
) -> None:
    """The receipt in a dataset folder is one of the chain."""
    chained = set(sha256.values())
    folders = {folder_of(name) for name in vouched if name.startswith(f"{DATASETS}/")}
    for folder in sorted(folders):
        name = f"{folder}/{RECEIPT}"
        try:
            found = whole(data / name, lambda _: None).sha256
        except FileNotFoundError:
            report.find("product_missing", name, "a dataset carries its receipt")
            continue
        if found not in chained:
            report.find("receipt_unchained", name, "it is none of the receipts in the chain", found=found)
