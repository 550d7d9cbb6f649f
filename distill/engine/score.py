"""Score: evidence becomes categories, shard by shard, in the same order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import orjson

from distill.engine import columns, notes, rules, shards, words
from distill.engine.columns import CATEGORIES
from distill.engine.pool import Pool
from distill.engine.products import ProductWriter
from distill.engine.progress import Progress
from distill.engine.review import index as review_index
from distill.engine.review.index import ShardReviews
from distill.engine.rules import Rules
from distill.engine.shards import EvidenceShard, ScoredManifest, ScoredShard
from schemas.evidence import Category, ProductFile, Scored
from services import files
from services.errors import Conflict


@dataclass(frozen=True, slots=True)
class ScoredProduct:
    """`counts["in"]` is every piece of evidence, and the sum of the categories."""

    manifest: ScoredManifest
    products: list[ProductFile]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """A shard to score, by the rules in a file of this content and hash."""

    shard: EvidenceShard
    data: Path
    rules: bytes
    rules_sha256: str

    @property
    def stem(self) -> str:
        return f"{self.shard.name}-{shards.key(self.shard.evidence.sha256, self.rules_sha256)}"

    @property
    def note(self) -> Path:
        return self.data / shards.FOLDER / shards.INDEX / f"{self.stem}.scored"

    @property
    def reviews(self) -> Path:
        """What the shard holds for reviewers."""
        return self.note.with_suffix(review_index.SUFFIX)

    @property
    def words(self) -> Path:
        return self.note.with_suffix(words.SUFFIX)

    @property
    def columns(self) -> Path:
        return self.note.with_suffix(columns.SUFFIX)

    def finished(self) -> ScoredShard | None:
        """The categories as they were written before, if that was here and the files are there."""
        known = notes.kept(self.data, self.note) if self.columns.exists() else None
        shard = ScoredShard.model_validate(known) if known is not None else None
        return shard if shard is not None and shards.is_there(self.data, shard.scored) else None


def score_evidence(data: Path, rule_file: Path, pool: Pool, progress: Progress) -> ScoredProduct:
    """Give every piece of evidence its category. Raises `Conflict` when there is no evidence yet."""
    folder = data / shards.FOLDER
    evidence = shards.evidence_manifest(folder)
    if evidence is None:
        raise Conflict("there is no evidence yet; run the stage `materialize` first", code="stage_missing")
    (folder / shards.SCORED).mkdir(parents=True, exist_ok=True)
    content = rules.read(rule_file)
    applied = Rules(content)
    tasks = [ScoreTask(shard, data, content, applied.sha256) for shard in evidence.shards]
    index = folder / shards.INDEX
    finished = {task.stem: task.finished() for task in tasks}
    missing = [task for task in tasks if finished[task.stem] is None]
    for done, (task, shard) in enumerate(zip(missing, pool.map(score_shard, missing), strict=True), start=1):
        finished[task.stem] = shard
        progress.reach(done, len(missing))
    files.sync_folder(folder / shards.SCORED)
    scored = [shard for shard in finished.values() if shard is not None]
    counts = shards.total([dict.fromkeys(("in", *CATEGORIES), 0), *(shard.counts for shard in scored)])
    assert counts["in"] == sum(counts.values()) - counts["in"], counts
    manifest = ScoredManifest(
        shards=scored,
        scorer_version=rules.SCORER_VERSION,
        policy_version=applied.version,
        rules_sha256=applied.sha256,
        counts=counts,
    )
    product = shards.write_manifest(folder / shards.SCORED_MANIFEST, manifest)
    shards.keep_only(folder / shards.SCORED, {Path(shard.scored.name).name for shard in scored})
    shards.keep_only(index, {task.note.name for task in tasks}, "*.scored")
    shards.keep_only(index, {task.columns.name for task in tasks}, "*.columns-*")
    shards.keep_only(index, {task.words.name for task in tasks}, "*.words-*")
    shards.keep_only(index, {task.reviews.name for task in tasks}, f"*{review_index.SUFFIX}")
    return ScoredProduct(manifest, [*(shard.scored for shard in scored), product], counts)


def score_shard(task: ScoreTask) -> ScoredShard:
    """Write the categories of one shard and, when they are there, the note that it is finished."""
    applied = _rules(task.rules)
    counts = dict.fromkeys(("in", *CATEGORIES), 0)
    folder = task.data / shards.FOLDER
    reviews = ShardReviews()
    asked, texts = columns.Builder(), list[str]()
    with ProductWriter(folder / shards.SCORED / f"{task.stem}.jsonl") as product:
        with shards.file_of(task.data, task.shard.evidence).open("rb") as lines:
            for line in lines:
                evidence = orjson.loads(line)
                category, reasons = applied.score(evidence)
                product.write_line(_scored(evidence["evidence_id"], category, reasons, applied.version))
                reviews.add(evidence, category)
                asked.take(evidence, category, reasons)
                texts.append(words.text_of(evidence))
                counts["in"] += 1
                counts[category] += 1
        written = product.finish()
    if words.available():
        words.write(task.words, texts)
    asked.write(task.columns)
    name = f"{shards.FOLDER}/{shards.SCORED}/{written.name}"
    shard = ScoredShard(
        name=task.shard.name,
        evidence_sha256=task.shard.evidence.sha256,
        scored=written.model_copy(update={"name": name}),
        counts=counts,
    )
    reviews.keep(task.data, task.reviews)
    notes.keep(task.data, task.note, shard.model_dump(mode="json"))
    return shard


@lru_cache(maxsize=1)
def _rules(content: bytes) -> Rules:
    return Rules(content)


def _scored(evidence_id: str, category: Category, reasons: Sequence[str], version: str) -> bytes:
    """`stillhouse.scored` as a line, its fields in the order of the schema."""
    record = {
        "schema": Scored.schema_id,
        "schema_version": Scored.version,
        "ext": {},
        "evidence_id": evidence_id,
        "category": category,
        "reasons": reasons,
        "scorer_version": rules.SCORER_VERSION,
        "policy_version": version,
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
