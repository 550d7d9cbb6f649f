"""The audit itself: key, chain, log, products and links, each held against the receipts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distill.engine import keys, receipts, shards
from distill.engine.audit import links, products, segments
from distill.engine.audit.chain import Anchor, Chain, read_chain
from distill.engine.audit.links import PROVENANCE, Links, Sampling
from distill.engine.audit.rebuild import rebuild
from distill.engine.audit.report import Report
from distill.engine.keys import KeyUnusable, PublicKey
from distill.engine.openfiles import OpenFiles
from distill.engine.places import DATASETS, LOG
from distill.engine.progress import Progress
from schemas.proof import Audit, AuditOutcome
from services.errors import NotFound

SAMPLE_DEFAULT: Final = 1000
HASHING_SHARE: Final = 0.6
"""How much of the work hashing is, for the progress shown."""
FOLLOWED_BY: Final = 0.7
"""How far the work is when links were followed and the rest is made anew."""
WITH_SOURCES: Final = tuple(f"{shards.FOLDER}/{name}/" for name in (shards.EVIDENCE, shards.QUARANTINE))


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """`sample` links are followed in each file, all when it is None; the same `seed` draws the same ones.

    `public_key` and `anchor` come from outside the data folder, where nobody who can write there has changed
    them: without them a chain that was rewritten by somebody with the key cannot be told from the first one.
    """

    sample: int | None = SAMPLE_DEFAULT
    seed: int = 0
    public_key: Path | None = None
    anchor: Anchor | None = None
    rebuild: bool = False
    findings_max: int = 1000


def audit(data: Path, options: AuditOptions, progress: Progress) -> Audit:
    """Hold everything under `data` against its receipts. Reads only, and blocks for as long as that takes.

    Raises `Stopped` when told to, and `OSError` for a disk that fails.
    """
    report = Report(options.findings_max)
    key = _key(data, options, report)
    chain = read_chain(data, key, options.anchor, report)
    holding = _Holding(data, chain, report, progress, links_end=FOLLOWED_BY if options.rebuild else 1.0)
    differing = holding.check_files()
    holding.check_links(Sampling(options.sample, options.seed, differing))
    if options.rebuild:
        standing = chain.history.standing()
        rebuild(data, chain.history, standing, report, progress, start=FOLLOWED_BY)
    if not chain.sha256:
        report.skip("receipts_none", receipts.FOLDER, "no stage has left a receipt here")
    return Audit(
        outcome=_outcome(report),
        key_id=key.id if key else None,
        head=chain.head,
        sample=options.sample,
        seed=options.seed,
        checked=dict(sorted(report.checked.items())),
        findings=report.findings,
        findings_left_out=report.left_out,
        unchecked=report.unchecked,
    )


def _outcome(report: Report) -> AuditOutcome:
    if report.findings:
        return "broken"
    return "partially_vouched" if report.unchecked else "vouched"


def _key(data: Path, options: AuditOptions, report: Report) -> PublicKey | None:
    path = options.public_key or keys.public_path(data)
    name = path.relative_to(data).as_posix() if path.is_relative_to(data) else str(path)
    try:
        return PublicKey.load(path)
    except NotFound as error:
        if (data / shards.FOLDER).is_dir() or options.public_key:
            report.find("key_missing", name, error.message)
    except KeyUnusable as error:
        report.find("key_invalid", name, error.message)
    return None


class _Holding:
    """Holds the files of a data folder against a chain of receipts."""

    def __init__(
        self, data: Path, chain: Chain, report: Report, progress: Progress, *, links_end: float
    ) -> None:
        self._data = data
        self._chain = chain
        self._report = report
        self._progress = progress
        self._links_end = links_end
        self._vouched = chain.history.standing()
        self._read = chain.history.read
        made = _bytes_of(data, shards.FOLDER) + _bytes_of(data, DATASETS)
        self._total = 2 * _bytes_of(data, LOG) + made
        self._done = 0

    def check_files(self) -> frozenset[str]:
        """Hash everything; returns the names of the products that differ."""
        data, report, vouched = self._data, self._report, self._vouched
        differing: set[str] = set()
        read = self._read
        segments.check_sources(data, read, report, self._count, self._locate_in_log)
        segments.check_seals(data, read, report, self._count)
        products.check_products(data, vouched, report, self._count, differing.add)
        if self._chain.believed or not self._chain.sha256:  # else nothing is believed, and that has been said
            products.check_company(data, vouched, report)
        products.check_custody(self._chain.history, report)
        products.check_copies(data, self._chain.sha256, vouched, report)
        for name in sorted(differing):
            if name.endswith(".jsonl") and _provenance_of(name) not in vouched:
                links.locate_in_product(data, name, report)
        return frozenset(differing)

    def check_links(self, sampling: Sampling) -> None:
        """Follow rows, evidence and quarantine back to the raw bytes."""
        names = [name for name in sorted(self._vouched) if self._has_lines(name)]
        with OpenFiles() as raw:
            following = Links(self._data, list(self._read), raw, self._report)
            for done, name in enumerate(names):
                self._progress.reach(done, len(names), start=HASHING_SHARE, end=self._links_end)
                self._follow(following, name, sampling)

    def _follow(self, following: Links, name: str, sampling: Sampling) -> None:
        provenance = _provenance_of(name)
        chosen = sampling.of(name, provenance, self._vouched[name].product.lines)
        if provenance in self._vouched and self._has_lines(provenance):
            following.check_rows(name, provenance, chosen)
        elif name.startswith(WITH_SOURCES) or name.endswith("/quarantine.jsonl"):
            following.check_sources(name, chosen)

    def _has_lines(self, name: str) -> bool:
        return name.endswith(".jsonl") and (self._data / name).is_file()

    def _locate_in_log(self, uri: str) -> None:
        made = [name for name in self._vouched if name.startswith(WITH_SOURCES) and name.endswith(".jsonl")]
        links.locate_in_log(self._data, uri, made, self._report)

    def _count(self, count: int) -> None:
        self._done += count
        self._report.checked["bytes"] += count
        self._progress.reach(self._done, self._total, end=HASHING_SHARE)


def _bytes_of(data: Path, folder: str) -> int:
    return sum(path.stat().st_size for path in (data / folder).rglob("*") if path.is_file())


def _provenance_of(name: str) -> str:
    return name.removesuffix(".jsonl") + PROVENANCE
