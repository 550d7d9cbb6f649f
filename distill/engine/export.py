"""Export: evidence becomes a dataset folder; whatever is left out lies in it with the reason.

Training rows carry the target's keys alone; provenance lies beside them, line for line. The folder's name is
made of its content, so the same evidence gives the same folder, and a published folder never changes.
"""

import hashlib
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from distill.engine import rules
from distill.engine.library import Judged, Library
from distill.engine.plans import PLANS, Made, Plan, reasons_of
from distill.engine.products import QUARANTINE, ProductWriter
from distill.engine.progress import Progress
from distill.engine.targets import Unfit
from schemas.canonical import canonical_bytes, content_id
from schemas.evidence import DatasetManifest, ProductFile, Provenance, Quarantined
from services import files
from services.errors import Conflict

MANIFEST: Final = "manifest.json"
TEMPORARY: Final = ".export-"


def export(folder: Path, kind: str, target: str, progress: Progress) -> DatasetManifest:
    """Write a dataset folder under `folder`.

    `counts["in"]` is every piece of evidence, and the sum of the other counts. Raises `Conflict` when an
    earlier stage is missing or stale, and when nothing fits: an empty dataset is a failure, not a product.
    """
    library = Library(folder)
    library.require()
    remove_leftovers(folder)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        plan = PLANS[kind][target](library, progress)
        products, counts = _write(library, plan, temporary, kind, progress)
        evidence_sha256, scored_sha256 = library.hashes()
        manifest = _manifest(
            {
                "kind": kind,
                "target": target,
                "files": [product.model_dump(mode="json") for product in products],
                "counts": counts,
                "evidence_sha256": evidence_sha256,
                "scored_sha256": scored_sha256,
                "scorer_version": rules.SCORER_VERSION,
                "policy_version": rules.POLICY_VERSION,
            }
        )
        files.replace(temporary / MANIFEST, canonical_bytes(manifest.model_dump(mode="json")) + b"\n")
        _publish(temporary, folder / manifest.dataset_id)
        return manifest
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _manifest(content: dict[str, Any]) -> DatasetManifest:
    dataset_id = f"{content['kind']}-{content['target']}-{content_id(content)[:16]}"
    return DatasetManifest.model_validate({**content, "dataset_id": dataset_id})


def remove_leftovers(folder: Path) -> None:
    """Remove what an export that was killed left half-written."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _write(
    library: Library, plan: Plan, folder: Path, kind: str, progress: Progress
) -> tuple[list[ProductFile], dict[str, int]]:
    counts = {"in": 0, "rows": 0, "drafts": 0, "quarantined": 0}
    reasons: Counter[str] = Counter()
    with ExitStack() as stack:
        rows, provenance, quarantine = (
            stack.enter_context(ProductWriter(folder / name))
            for name in (f"{kind}.jsonl", f"{kind}.provenance.jsonl", QUARANTINE)
        )
        for judged, behind in library.in_order():
            counts["in"] += 1
            try:
                made = plan.place(judged)
            except Unfit as unfit:
                quarantine.write(_left_out(judged, unfit))
                reasons[unfit.code] += 1
                counts["quarantined"] += 1
            else:
                counts["rows" if made else "drafts"] += 1
                if made is not None:
                    rows.write_line(made.line)
                    provenance.write(_provenance(rows.lines, made, judged))
            progress.reach(behind, library.size_bytes(), start=0.5)
        assert counts["in"] == sum(counts.values()) - counts["in"], counts
        if not counts["rows"]:
            raise Conflict(f"nothing fits a {kind} dataset: {_summary(reasons)}", code="nothing_to_export")
        return [rows.finish(), provenance.finish(), quarantine.finish()], counts


def _summary(reasons: Counter[str]) -> str:
    listed = ", ".join(f"{count} × {code}" for code, count in sorted(reasons.items()))
    return listed or "there is no evidence"


def _provenance(line: int, made: Made, judged: Judged) -> Provenance:
    return Provenance(
        line=line,
        line_sha256=hashlib.sha256(made.line).hexdigest(),
        evidence_id=judged.id,
        source=judged.evidence.source,
        rejected=made.draft.ref if made.draft else None,
        reasons=reasons_of(made.draft) if made.draft else [],
    )


def _left_out(judged: Judged, unfit: Unfit) -> Quarantined:
    return Quarantined(
        reason=unfit.code, detail=unfit.detail, source=judged.evidence.source, evidence_id=judged.id
    )


def _publish(temporary: Path, final: Path) -> None:
    """Give the folder its name in one step. One that is there already has the same content."""
    if (final / MANIFEST).exists():
        return
    files.sync_folder(temporary)
    temporary.chmod(0o755)
    temporary.replace(final)
    files.sync_folder(final.parent)
