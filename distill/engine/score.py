"""Score: evidence becomes categories, in the same order."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from distill.engine import rules
from distill.engine.products import EVIDENCE, SCORED, ProductWriter, lines_from
from distill.engine.progress import Progress
from schemas.evidence import Category, Evidence, ProductFile, Scored
from services.errors import Conflict


@dataclass(frozen=True, slots=True)
class ScoredProduct:
    """`counts["in"]` is every piece of evidence, and the sum of the categories."""

    products: list[ProductFile]
    counts: dict[str, int]


def score_evidence(folder: Path, progress: Progress) -> ScoredProduct:
    """Write `scored.jsonl`. Raises `Conflict` when there is no evidence yet."""
    path = folder / EVIDENCE
    if not path.exists():
        raise Conflict("there is no evidence yet; run the stage `materialize` first", code="stage_missing")
    total, behind = path.stat().st_size, 0
    counts = {"in": 0, **dict.fromkeys(get_args(Category), 0)}
    with ProductWriter(folder / SCORED) as product:
        for line in lines_from(path):
            scored = scored_of(Evidence.model_validate_json(line))
            product.write(scored)
            counts["in"] += 1
            counts[scored.category] += 1
            behind += len(line)
            progress.reach(behind, total)
        assert counts["in"] == sum(counts.values()) - counts["in"], counts
        return ScoredProduct([product.finish()], counts)


def scored_of(evidence: Evidence) -> Scored:
    category, reasons = rules.score(evidence)
    return Scored(
        evidence_id=evidence.evidence_id,
        category=category,
        reasons=reasons,
        scorer_version=rules.SCORER_VERSION,
        policy_version=rules.POLICY_VERSION,
    )
