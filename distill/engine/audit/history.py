"""What the receipts say together, gathered one by one: there may be thousands, and most repeat each other."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from distill.engine import keys, receipts, shards
from distill.engine.exports.run import HOLDOUT_IDS
from distill.engine.places import DATASETS, REPLAYS
from schemas.evidence import ProductFile
from schemas.proof import Receipt

FOLDERS: Final = ("export", "replay", "compare")
"""Stages that leave a folder of its own for each thing that they make."""
ROOTS: Final = (shards.FOLDER, DATASETS)
"""Where every file is a product. Replays are products too, but one that was stopped leaves other files."""
NOT_PRODUCTS: Final = (receipts.FOLDER, keys.FOLDER, f"{shards.FOLDER}/{shards.INDEX}", HOLDOUT_IDS)
"""Folders below these without products: looked at elsewhere, or made anew from the log when missing."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """A product, and the receipt that vouches for it."""

    product: ProductFile
    sequence: int


@dataclass(slots=True)
class Readings:
    """What stages say that they read of one file: (start, end) to (sha256, lines) and the first to say so."""

    parts: dict[tuple[int, int], dict[tuple[str, int], int]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    @property
    def end(self) -> int:
        return max((end for _, end in self.parts), default=0)


@dataclass(slots=True)
class History:
    """`current` are the runs whose products stand: the last of each stage, or of each folder that one makes.

    `read` are the files that were given: the log, imports, the holdout. `made` is every product that there
    ever was, by name and sha256.
    """

    current: dict[str, Receipt] = field(default_factory=dict)
    read: dict[str, Readings] = field(default_factory=lambda: defaultdict(Readings))
    made: set[tuple[str, str]] = field(default_factory=set)

    def add(self, receipt: Receipt) -> None:
        """Take in the next receipt of the chain."""
        self.current[_subject(receipt)] = receipt
        self.made.update((product.name, product.sha256) for product in receipt.products)
        for one in receipt.materials:
            if not is_made(one.uri):
                said = self.read[one.uri].parts[one.first_offset, one.last_offset]
                said.setdefault((one.sha256, one.lines), receipt.sequence)

    def standing(self) -> dict[str, Vouched]:
        """Every product that should be there, by name."""
        return {
            product.name: Vouched(product, receipt.sequence)
            for receipt in self.in_order()
            for product in receipt.products
        }

    def in_order(self) -> Iterator[Receipt]:
        return iter(sorted(self.current.values(), key=lambda receipt: receipt.sequence))


def _subject(receipt: Receipt) -> str:
    """What a later receipt takes the place of an earlier one in."""
    if receipt.stage not in FOLDERS:
        return receipt.stage
    return min((folder_of(product.name) for product in receipt.products), default=receipt.stage)


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def is_made(uri: str) -> bool:
    """Whether only a stage can have made a file of this name; the log and imported files are given."""
    return uri.startswith(tuple(f"{root}/" for root in (*ROOTS, REPLAYS))) and not uri.startswith(
        tuple(f"{name}/" for name in NOT_PRODUCTS)
    )
