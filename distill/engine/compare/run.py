"""The stage `compare`: two replays read, compared, and the report published."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from distill.engine.compare.gate import Gate
from distill.engine.compare.page import SHOWN_MAX, page
from distill.engine.compare.pairing import paired
from distill.engine.compare.results import ArmResults, read_arm
from distill.engine.compare.verdict import Terms, differing, judged
from distill.engine.places import MANIFEST, REPLAYS, TASKS
from distill.engine.progress import Progress
from distill.engine.receipts import Receipts, material_of, product_of
from schemas.canonical import content_id
from schemas.comparison import Comparison
from schemas.distill import JobRequest
from schemas.evidence import ProductFile
from schemas.proof import ReceiptRef
from schemas.replay import Replay
from services import files
from services.errors import InvalidRequest, NotFound

COMPARISONS: Final = "comparisons"
COMPARISON: Final = "comparison.json"
REPORT: Final = "report.html"
RECORDED: Final = "recorded"
COMPARISON_ID: Final = re.compile(r"[0-9a-f]{16}")
LAYOUT: Final = "2"
"""Part of a comparison's id: other figures, or another report, of the same replays have another one."""

OPTIONS: Final = frozenset(
    {"baseline", "current", "confidence", "counting", "independent", "gate", "across_policies", "seed"}
)
"""The fields of a job that belong to a comparison."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, checked."""

    baseline: str
    current: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison that is published, its files below the data folder, and the receipt for them."""

    comparison: Comparison
    files: list[ProductFile]
    receipt: ReceiptRef


def planned(request: JobRequest) -> Plan:
    """What a request asks for. Raises `InvalidRequest`. A gate's confidence is that of the comparison."""
    if request.current is None:
        raise InvalidRequest("`current` is missing; it names the replay to be compared", param="current")
    gate = Gate.parse(request.gate) if request.gate is not None else None
    confidence = request.confidence
    if gate is not None:
        if "confidence" in request.model_fields_set and confidence != gate.confidence:
            raise InvalidRequest(
                f"`confidence` is {confidence:g}, and the gate {gate.text!r} says otherwise; leave one out",
                param="confidence",
            )
        confidence = gate.confidence
    baseline = f"{request.current}.{RECORDED}" if request.baseline == RECORDED else request.baseline
    terms = Terms(
        confidence, request.seed, request.counting, request.independent, gate, request.across_policies
    )
    return Plan(baseline, request.current, terms)


def compare(data: Path, plan: Plan, progress: Progress) -> Compared:
    """Compare two replays below `data` and write the report. Raises `NotFound` and `Conflict`. Blocks."""
    started_at = datetime.now(UTC)
    Receipts(data).prepare()
    baseline = _arm(data, plan.baseline)
    progress.reach(1, 4)
    current = _arm(data, plan.current)
    progress.reach(2, 4)
    pairs = paired(baseline, current, plan.terms.counting, plan.terms.independent)
    made = judged(_id_of(baseline, current, plan.terms), baseline, current, pairs, plan.terms)
    progress.reach(3, 4)
    products = _publish(data, made, page(made, differing(pairs)[:SHOWN_MAX]))
    return Compared(made, products, _sign(data, plan, made, products, started_at))


def _arm(data: Path, replay_id: str) -> ArmResults:
    folder = data / REPLAYS / replay_id
    if not folder.is_dir():
        raise NotFound(
            f"there is no replay {replay_id!r}; `stillhouse replay` makes one", code="replay_not_found"
        )
    return read_arm(folder)


def _id_of(baseline: ArmResults, current: ArmResults, terms: Terms) -> str:
    arms = [[arm.replay_id, arm.sha256, arm.fingerprint, arm.left_out] for arm in (baseline, current)]
    gate = terms.gate.text if terms.gate is not None else None
    asked = [terms.confidence, terms.seed, terms.counting, terms.independent, gate, terms.across_policies]
    return content_id([LAYOUT, arms, asked])[:16]


def _publish(data: Path, made: Comparison, report: str) -> list[ProductFile]:
    folder = data / COMPARISONS / made.comparison_id
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / REPORT, report.encode(errors="replace"))
    files.replace(folder / COMPARISON, made.model_dump_json(indent=2).encode() + b"\n")
    return [product_of(data, folder / name) for name in (REPORT, COMPARISON)]


def _sign(
    data: Path, plan: Plan, made: Comparison, products: list[ProductFile], started_at: datetime
) -> ReceiptRef:
    read = [
        data / REPLAYS / one / name for one in (plan.baseline, plan.current) for name in (MANIFEST, TASKS)
    ]
    terms = plan.terms
    written = Receipts(data).write(
        "compare",
        materials=[material_of(data, path) for path in read],
        products=products,
        counts=made.counts,
        config={
            "baseline": plan.baseline,
            "current": plan.current,
            "confidence": terms.confidence,
            "counting": terms.counting,
            "independent": terms.independent,
            "gate": terms.gate.text if terms.gate else None,
            "across_policies": terms.across_policies,
        },
        schema_versions={Replay.schema_id: Replay.version},
        started_at=started_at,
        seed=terms.seed,
    )
    return written.ref


def file_of(data: Path, comparison_id: str, name: str) -> Path:
    """The path of a comparison's file. Raises `NotFound`. Blocks."""
    path = data / COMPARISONS / comparison_id / name
    if not COMPARISON_ID.fullmatch(comparison_id) or name not in (REPORT, COMPARISON) or not path.is_file():
        raise NotFound(
            f"there is no file {name!r} of a comparison {comparison_id!r}", code="comparison_not_found"
        )
    return path
