"""Evidence and categories made anew from the raw bytes, aside: the same bytes must come out.

Stages are pure functions of what they read, so this needs no trust in anything between the log and the
products: neither in caches, nor in whoever had the key.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from distill.engine import keys, rules, shards
from distill.engine.audit.history import History, Vouched, folder_of
from distill.engine.audit.report import Report
from distill.engine.inputs import Input
from distill.engine.materialize import Limits, materialize
from distill.engine.places import IMPORTS, LOG
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from distill.engine.rules import SHIPPED, Rules
from distill.engine.score import score_evidence
from distill.engine.sources import OWN
from schemas.evidence import ProductFile
from schemas.proof import Receipt
from services.errors import PlatformError

LIMITS: Final = ("part_bytes", "line_bytes_max", "depth_max")
EVIDENCE, QUARANTINE, SCORED = (
    f"{shards.FOLDER}/{name}" for name in (shards.EVIDENCE, shards.QUARANTINE, shards.SCORED)
)


class _Impossible(Exception):
    """The reason why nothing can be made anew."""


class _Share(Progress):
    """A stage's progress as a part of the whole."""

    def __init__(self, whole: Progress, start: float, end: float) -> None:
        super().__init__()
        self._whole, self._start, self._end = whole, start, end

    def reach(self, done: int, total: int, *, start: float = 0.0, end: float = 1.0) -> None:
        super().reach(done, total, start=start, end=end)
        whole = self._end - self._start
        self._whole.reach(round(self.fraction * 1000), 1000, start=self._start, end=self._start + whole)


def rebuild(
    data: Path,
    history: History,
    vouched: Mapping[str, Vouched],
    report: Report,
    progress: Progress,
    *,
    start: float,
) -> None:
    """Run `materialize` and `score` again, as their last receipts say, and compare. Needs room in TMPDIR."""
    made = history.current.get("materialize")
    if made is None:
        report.skip("rebuild_impossible", EVIDENCE, "no materialize has left a receipt")
        return
    middle = start + (1.0 - start) * 0.7
    with tempfile.TemporaryDirectory(prefix="stillhouse-rebuild-") as name, Pool(1) as pool:
        again = Path(name)
        keys.generate(again)  # what stages leave for themselves is sealed; nothing of it is kept
        try:
            products = _materialize(data, again, made, pool, _Share(progress, start, middle))
            _compare(EVIDENCE, products, vouched, report)
            _compare(QUARANTINE, products, vouched, report)
            scored = history.current.get("score")
            if scored is not None:
                _check_same_evidence(made, scored)
                products = _score(again, scored, pool, _Share(progress, middle, 1.0))
                _compare(SCORED, products, vouched, report)
        except (_Impossible, PlatformError) as error:
            report.skip("rebuild_impossible", EVIDENCE, str(error))


def _materialize(
    data: Path, again: Path, receipt: Receipt, pool: Pool, progress: Progress
) -> list[ProductFile]:
    limits = Limits(**{name: _told(receipt.config, name) for name in LIMITS})
    ends: dict[str, int] = {}
    for one in receipt.materials:
        ends[one.uri] = max(one.last_offset, ends.get(one.uri, 0))
    sources = [_input(data, uri, end) for uri, end in ends.items()]
    return materialize(sources, again, limits, pool, progress).products


def _told(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int):
        raise _Impossible(f"the receipt does not say with which `{name}` the stage ran")
    return value


def _input(data: Path, uri: str, end: int) -> Input:
    path = data / uri
    if not path.is_file():
        raise _Impossible(f"{uri} is not there")
    if uri.startswith(f"{LOG}/"):
        return Input(OWN, path.name, path, end)
    name = uri.removeprefix(f"{IMPORTS}/")
    return Input(name.partition("/")[0], name, path, end)


def _check_same_evidence(made: Receipt, scored: Receipt) -> None:
    """What was made anew is the evidence of today, which the categories may be behind."""
    there = {(one.name, one.sha256) for one in made.products}
    if any((one.uri, one.sha256) not in there for one in scored.materials):
        raise _Impossible("the categories are older than the evidence; run the stage `score` first")


def _score(again: Path, receipt: Receipt, pool: Pool, progress: Progress) -> list[ProductFile]:
    applied, there = receipt.config.get("rules_sha256"), Rules(rules.read(SHIPPED)).sha256
    if applied != there:
        raise _Impossible(f"the rules that were applied ({applied}) are not those of this version ({there})")
    return score_evidence(again, SHIPPED, pool, progress).products


def _compare(
    folder: str, products: list[ProductFile], vouched: Mapping[str, Vouched], report: Report
) -> None:
    made = {one.name: one for one in products if folder_of(one.name) == folder}
    names = {name for name in vouched if folder_of(name) == folder}
    for name in sorted(names | made.keys()):
        report.checked["rebuilt"] += 1
        expected = vouched[name].product.sha256 if name in vouched else None
        found = made[name].sha256 if name in made else None
        if expected != found:
            report.find(
                "rebuild_differs",
                name,
                "made anew from what the stage read, it is not what was signed",
                expected=expected or "none",
                found=found or "none",
            )
