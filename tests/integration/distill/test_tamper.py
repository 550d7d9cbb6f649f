"""Every way of tampering that we could think of, on the products of a real run: the audit finds each one."""

import asyncio
import base64
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.engine import dsse, keys
from distill.engine.audit import AuditOptions, audit
from distill.engine.progress import Progress
from distill.engine.receipts import FOLDER, HEAD, Receipts, list_files, material_of, product_of, read_receipt
from schemas.canonical import canonical_bytes
from schemas.proof import Audit, AuditFinding, Receipt
from tests.unit.distill.builders import (
    Json,
    distill,
    done,
    episode,
    finished,
    ndjson,
    run,
    send,
    verdict,
    verdict_record,
)


async def make(data: Path) -> None:
    """Every stage once, over a sealed segment and a live one."""
    async with distill(data, segment_bytes_max=16_384, disk_free_bytes_min=0) as client:
        for number in range(30):
            name = f"r{number:02d}"
            judged = verdict("rejected", "fill.underage") if number % 5 == 0 else verdict()
            await send(client, [run(name, question=f"question {name} of somebody", verdict=judged)])
            await send(client, [verdict_record(name)] if number % 7 == 0 else episode(f"e{number}"))
        imported(data).parent.mkdir(parents=True)
        imported(data).write_bytes(ndjson(_conversation(number) for number in range(5)))
        await done(client, stage="materialize")
        await done(client, stage="score")
        for kind in ("preference", "sft"):
            await done(client, stage="export", kind=kind, target="openai")


def _conversation(number: int) -> Json:
    """A line of chat JSONL, as others export it."""
    asked = {"role": "user", "content": f"question {number} from elsewhere"}
    return {"messages": [asked, {"role": "assistant", "content": f"answer {number}"}]}


def imported(data: Path) -> Path:
    return data / "imports" / "openai" / "chats.jsonl"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("original") / "data"
    asyncio.run(make(data))
    return data


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def audited(data: Path, **options: Any) -> Audit:
    return audit(data, AuditOptions(**options), Progress())


def codes(report: Audit) -> set[str]:
    return {finding.code for finding in report.findings}


def named(data: Path, path: Path) -> str:
    return path.relative_to(data).as_posix()


# --- where things are -------------------------------------------------------------------------


def sealed(data: Path) -> Path:
    return next(path for path in segments(data) if manifest_of(path).exists())


def live(data: Path) -> Path:
    return next(path for path in segments(data) if not manifest_of(path).exists())


def segments(data: Path) -> list[Path]:
    return sorted((data / "log").glob("runs-*.jsonl"))


def manifest_of(segment: Path) -> Path:
    return segment.with_name(f"{segment.stem}.manifest.json")


def products(data: Path, kind: str) -> list[Path]:
    """Files of a stage with at least two lines, largest first."""
    found = [path for path in (data / "distill" / kind).rglob("*.jsonl") if len(lines_of(path)) > 1]
    return sorted(found, key=lambda path: -path.stat().st_size)


def rows(data: Path) -> Path:
    """The largest training file."""
    found = (data / "datasets").glob("*/*.provenance.jsonl")
    paths = [path.with_name(path.name.replace(".provenance", "")) for path in found]
    return max(paths, key=lambda path: path.stat().st_size)


def provenance_of(path: Path) -> Path:
    return path.with_name(path.name.replace(".jsonl", ".provenance.jsonl"))


def receipt(data: Path, number: int) -> Path:
    return data / FOLDER / dict(list_files(data / FOLDER))[number]


def last(data: Path) -> int:
    return list_files(data / FOLDER)[-1][0]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


# --- what is done to them -----------------------------------------------------------------------


def flip(path: Path) -> int:
    """Change one letter of a question, so that the line is as valid as it was; returns which line it was."""
    lines = lines_of(path)
    number = next(at for at, line in enumerate(lines) if at and b"question" in line)
    at = lines[number].index(b"question")
    lines[number] = lines[number][:at] + b"Q" + lines[number][at + 1 :]
    write_lines(path, lines)
    return number


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def cut(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - len(lines_of(path)[-1]))


def edit(path: Path, change: Callable[[Any], None], line: int = 0) -> None:
    lines = lines_of(path)
    value = orjson.loads(lines[line])
    change(value)
    lines[line] = canonical_bytes(value) + b"\n"
    write_lines(path, lines)


def edit_payload(path: Path, change: Callable[[Any], None]) -> None:
    """Change what a receipt says and leave its signature."""
    envelope = orjson.loads(path.read_bytes())
    payload = orjson.loads(base64.b64decode(envelope["payload"]))
    change(payload)
    envelope["payload"] = base64.b64encode(canonical_bytes(payload)).decode()
    path.write_bytes(canonical_bytes(envelope) + b"\n")


def change_counts(payload: Any) -> None:
    """One record more that was thrown away, and still they add up."""
    counts = payload["predicate"]["counts"]
    counts["in"] += 1
    counts["quarantined"] = counts.get("quarantined", 0) + 1


def flip_signature(path: Path) -> None:
    envelope = orjson.loads(path.read_bytes())
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[10] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    path.write_bytes(canonical_bytes(envelope) + b"\n")


def other_key(data: Path) -> keys.SigningKey:
    elsewhere = data.parent / "other"
    keys.generate(elsewhere)
    return keys.load(elsewhere)


def swap_public_key(data: Path) -> None:
    keys.public_path(data).write_text(other_key(data).public.pem)


def sign_with_another(data: Path, path: Path) -> None:
    """The same statement under another key, as somebody without ours can make it."""
    payload = base64.b64decode(orjson.loads(path.read_bytes())["payload"])
    path.write_bytes(dsse.seal(payload, dsse.STATEMENT, other_key(data)))


def remove_tail(data: Path) -> None:
    receipt(data, last(data)).unlink()


def roll_back(data: Path, *, receipts_too: bool) -> None:
    """Put back the head as it was one receipt ago, as somebody who kept a copy can."""
    end = last(data)
    tail = receipt(data, end)
    kept = tail.read_bytes()
    tail.unlink()
    (data / FOLDER / HEAD).unlink()
    for number in range(1, end):  # the daemon's own code makes the head of each receipt in turn
        others = {other: receipt(data, other).read_bytes() for other in range(number + 1, end)}
        paths = {other: receipt(data, other) for other in others}
        for path in paths.values():
            path.unlink()
        Receipts(data).prepare()
        for other, content in others.items():
            paths[other].write_bytes(content)
    if not receipts_too:
        tail.write_bytes(kept)


def reseal(segment: Path) -> None:
    """Make the manifest fit what the segment has become."""
    content = segment.read_bytes()
    changes = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": content.count(b"\n"),
        "bytes": len(content),
    }
    edit(manifest_of(segment), lambda manifest: manifest.update(changes))


def flip_and_reseal(segment: Path) -> None:
    flip(segment)
    reseal(segment)


def replace_row(path: Path) -> None:
    """Another row, and a provenance that says so: the two agree."""
    lines = lines_of(path)
    lines[0] = lines[1]
    write_lines(path, lines)
    sha256 = hashlib.sha256(lines[0]).hexdigest()
    edit(provenance_of(path), lambda link: link.update(line_sha256=sha256))


def receipt_of(data: Path, number: int) -> Receipt:
    return read_receipt(receipt(data, number).read_bytes(), keys.PublicKey.load(keys.public_path(data)))


def vouch_again(data: Path, path: Path) -> None:
    """Sign what a dataset has become: somebody has the key, or the exporter itself is wrong."""
    name = named(data, path)
    for number in range(1, last(data) + 1):
        before = receipt_of(data, number)
        if name in {product.name for product in before.products}:
            break
    Receipts(data).write(
        before.stage,
        materials=[
            material_of(data, data / one.uri, end=one.last_offset) if one.uri.startswith("log/") else one
            for one in before.materials
        ],
        products=[product_of(data, data / product.name) for product in before.products],
        counts=before.counts,
        config=before.config,
        schema_versions=before.schema_versions,
        started_at=datetime.now(UTC),
    )


def point_elsewhere(path: Path) -> None:
    """The first row is said to come from where the second one comes from."""
    other = orjson.loads(lines_of(provenance_of(path))[1])["source"]
    edit(provenance_of(path), lambda link: link.update(source=other))


@dataclass(frozen=True)
class Tampering:
    """What is done, and what must be found: codes, and in which file."""

    act: Callable[[Path], object]
    codes: frozenset[str]
    file: Callable[[Path], Path]


def on(where: Callable[[Path], Path], act: Callable[[Path], object], *found: str) -> Tampering:
    """Something done to one file, and found in it."""
    return Tampering(lambda data: act(where(data)), frozenset(found), where)


def chain(data: Path) -> Path:
    return data / FOLDER


def head(data: Path) -> Path:
    return data / FOLDER / HEAD


def first(data: Path) -> Path:
    return receipt(data, 1)


def second(data: Path) -> Path:
    return receipt(data, 2)


def evidence(data: Path) -> Path:
    return products(data, "evidence")[0]


def other_evidence(data: Path) -> Path:
    return products(data, "evidence")[1]


def scored(data: Path) -> Path:
    return products(data, "scored")[0]


def left_out(data: Path) -> Path:
    found = (data / "datasets").glob("*/quarantine.jsonl")
    return max(found, key=lambda path: path.stat().st_size)


def manifest(data: Path) -> Path:
    return rows(data).with_name("manifest.json")


def beside(data: Path) -> Path:
    return rows(data).with_name("receipt.dsse.json")


def drop(line: int) -> Callable[[Path], None]:
    return lambda path: write_lines(path, [one for at, one in enumerate(lines_of(path)) if at != line])


def reorder(path: Path) -> None:
    lines = lines_of(path)
    write_lines(path, [lines[1], lines[0], *lines[2:]])


def repeat_last(path: Path) -> None:
    write_lines(path, [*lines_of(path), lines_of(path)[-1]])


TAMPERINGS: dict[str, Tampering] = {
    # the log
    "a letter in the live segment": on(live, flip, "segment_differs", "line_differs"),
    "a letter in a sealed segment": on(sealed, flip, "segment_differs", "line_differs", "seal_differs"),
    "a line deleted from the live segment": on(live, drop(1), "segment_truncated", "line_differs"),
    "a line deleted from a sealed segment": on(sealed, drop(1), "segment_truncated", "seal_differs"),
    "lines of the live segment in another order": on(live, reorder, "segment_differs", "line_differs"),
    "lines of a sealed segment in another order": on(sealed, reorder, "segment_differs", "seal_differs"),
    "the live segment cut short": on(live, cut, "segment_truncated"),
    "a sealed segment cut short": on(sealed, cut, "segment_truncated", "seal_differs"),
    "a line more in a sealed segment": on(sealed, repeat_last, "seal_differs"),
    "a sealed segment and its manifest changed": on(sealed, flip_and_reseal, "segment_differs"),
    "a sealed segment gone": on(sealed, Path.unlink, "segment_missing"),
    "the live segment gone": on(live, Path.unlink, "segment_missing"),
    "segments swapped": Tampering(
        lambda data: swap(sealed(data), live(data)), frozenset({"seal_differs"}), sealed
    ),
    "a manifest gone": on(lambda data: manifest_of(sealed(data)), Path.unlink, "seal_missing"),
    "a manifest that is none": on(
        lambda data: manifest_of(sealed(data)), lambda path: path.write_bytes(b"{}"), "seal_invalid"
    ),
    "a letter in an imported file": on(imported, flip, "source_differs", "line_differs"),
    "an imported file cut short": on(imported, cut, "source_truncated"),
    "a file more in the log": on(
        lambda data: data / "log" / "runs-x.jsonl", lambda path: path.write_bytes(b"{}"), "file_unexpected"
    ),
    # products
    "a letter in evidence": on(evidence, flip, "product_differs"),
    "a category edited": on(
        scored, lambda path: edit(path, lambda line: line.update(reasons=["x"])), "product_differs"
    ),
    "a letter in a training row": on(rows, flip, "product_differs", "row_differs"),
    "a training row deleted": on(rows, drop(0), "product_differs", "row_differs"),
    "training rows in another order": on(rows, reorder, "product_differs", "row_differs"),
    "a training row more": on(rows, repeat_last, "product_differs"),
    "a training row replaced, its provenance too": on(rows, replace_row, "product_differs"),
    "evidence in another order": on(evidence, reorder, "product_differs", "line_invalid"),
    "evidence swapped": Tampering(
        lambda data: swap(evidence(data), other_evidence(data)), frozenset({"product_differs"}), evidence
    ),
    "evidence gone": on(evidence, Path.unlink, "product_missing"),
    "a quarantined record taken away": on(left_out, cut, "product_differs"),
    "a dataset's manifest edited": on(
        manifest, lambda path: edit(path, lambda value: value.update(kind="rag")), "product_differs"
    ),
    "a provenance line edited": Tampering(
        lambda data: edit(provenance_of(rows(data)), lambda link: link["source"].update(offset=0), line=1),
        frozenset({"product_differs", "link_broken"}),
        lambda data: provenance_of(rows(data)),
    ),
    "a provenance line deleted": Tampering(
        lambda data: drop(0)(provenance_of(rows(data))),
        frozenset({"product_differs", "provenance_misplaced", "provenance_count"}),
        lambda data: provenance_of(rows(data)),
    ),
    "a file more in a dataset": on(
        lambda data: rows(data).with_name("more.jsonl"),
        lambda path: path.write_bytes(b"{}"),
        "file_unexpected",
    ),
    "a file more among the evidence": on(
        lambda data: evidence(data).with_name("runs-999999.jsonl"),
        lambda path: path.write_bytes(b"{}\n"),
        "file_unexpected",
    ),
    "a link in place of a file": on(
        lambda data: rows(data).with_name("link.jsonl"),
        lambda path: path.symlink_to("/etc"),
        "file_unexpected",
    ),
    "a dataset's receipt edited": on(
        beside, lambda path: edit_payload(path, change_counts), "receipt_unchained"
    ),
    "a dataset's receipt gone": on(beside, Path.unlink, "product_missing"),
    # receipts
    "a receipt's counts edited": on(
        second, lambda path: edit_payload(path, change_counts), "signature_invalid"
    ),
    "a receipt's signature changed": on(second, flip_signature, "signature_invalid"),
    "a receipt that is none": on(second, lambda path: path.write_bytes(b"{}"), "receipt_invalid"),
    "the public key swapped": Tampering(swap_public_key, frozenset({"key_unknown"}), first),
    "a receipt signed with another key": Tampering(
        lambda data: sign_with_another(data, second(data)), frozenset({"key_unknown"}), second
    ),
    "the public key gone": Tampering(
        lambda data: keys.public_path(data).unlink(), frozenset({"key_missing"}), keys.public_path
    ),
    "receipts swapped": Tampering(
        lambda data: swap(first(data), second(data)), frozenset({"receipt_misplaced"}), first
    ),
    "the first receipt gone": Tampering(
        lambda data: first(data).unlink(), frozenset({"receipt_missing"}), chain
    ),
    "a receipt gone from the middle": Tampering(
        lambda data: second(data).unlink(), frozenset({"receipt_missing"}), chain
    ),
    "the last receipt gone": Tampering(remove_tail, frozenset({"receipt_missing"}), chain),
    "the last receipt twice": Tampering(
        lambda data: shutil.copy(
            receipt(data, last(data)), chain(data) / f"{last(data) + 1:06d}-export.dsse.json"
        ),
        frozenset({"receipt_misplaced"}),
        lambda data: chain(data) / f"{last(data) + 1:06d}-export.dsse.json",
    ),
    "a file more among the receipts": on(
        lambda data: chain(data) / "more.json", lambda path: path.write_bytes(b"{}"), "file_unexpected"
    ),
    "the head gone": on(head, Path.unlink, "head_missing"),
    "the head edited": on(
        head, lambda path: edit_payload(path, lambda value: value.update(count=1)), "signature_invalid"
    ),
    "the head rolled back": Tampering(
        lambda data: roll_back(data, receipts_too=False), frozenset({"head_behind"}), head
    ),
    "head and last receipt rolled back": Tampering(
        lambda data: roll_back(data, receipts_too=True), frozenset({"file_unexpected"}), rows
    ),
    "all receipts gone": Tampering(
        lambda data: shutil.rmtree(chain(data)), frozenset({"file_unexpected"}), rows
    ),
}


def test_the_run_itself_is_vouched_for(data: Path) -> None:
    report = audited(data, sample=None)
    assert (report.outcome, report.findings, report.unchecked) == ("vouched", [], [])
    assert report.checked["links"] > report.checked["products"]


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found(data: Path, name: str) -> None:
    tampering = TAMPERINGS[name]
    file = named(data, tampering.file(data))
    tampering.act(data)
    report = audited(data)
    assert report.outcome == "broken"
    assert tampering.codes <= {one.code for one in report.findings if one.file == file}, report.findings


def test_an_imported_file_that_is_gone_leaves_its_evidence_unproven(data: Path) -> None:
    imported(data).unlink()
    report = audited(data)
    assert (report.outcome, report.findings) == ("partially_vouched", [])
    assert [(one.code, one.file) for one in report.unchecked] == [
        ("source_missing", named(data, imported(data)))
    ]


def test_a_job_audits_as_the_command_does(data: Path) -> None:
    async def story() -> None:
        async with distill(data, disk_free_bytes_min=0) as client:
            job = await done(client, stage="audit", all=True)
            assert (job["audit"]["outcome"], job["audit"]["sample"]) == ("vouched", None)
            flip(rows(data))
            job = await finished(client, stage="audit")
            assert (job["state"], job["error"]["code"]) == ("failed", "audit_failed")
            assert {"product_differs", "row_differs"} == {one["code"] for one in job["audit"]["findings"]}

    asyncio.run(story())


def _finding(report: Audit, code: str) -> AuditFinding:
    return next(finding for finding in report.findings if finding.code == code)


def test_a_changed_line_of_the_log_is_named_by_its_offset(data: Path) -> None:
    segment = live(data)
    number = flip(segment)
    offset = sum(map(len, lines_of(segment)[:number]))
    found = _finding(audited(data), "line_differs")
    changed = hashlib.sha256(lines_of(segment)[number]).hexdigest()
    assert (found.file, found.offset, found.found) == (named(data, segment), offset, changed)


def test_a_changed_row_is_named_by_its_line(data: Path) -> None:
    number = flip(rows(data))
    assert _finding(audited(data, sample=0), "row_differs").line == number + 1


def test_the_next_run_does_not_vouch_for_what_was_changed(data: Path) -> None:
    """Neither a shard of the same size, nor one whose note was changed to fit, is signed by a later run."""
    shard, other = products(data, "evidence")[:2]
    before = shard.read_bytes()
    flip(shard)
    flip(other)
    note = data / "distill" / "index" / f"{other.stem}.evidence"
    found = hashlib.sha256(other.read_bytes()).hexdigest()
    edit_payload(note, lambda value: value["is"]["evidence"].update(sha256=found))

    async def story() -> None:
        async with distill(data, disk_free_bytes_min=0) as client:
            await send(client, [run("later")])
            await done(client, stage="materialize")

    asyncio.run(story())
    changed = {one.file for one in audited(data).findings if one.code == "product_differs"}
    assert changed == {named(data, shard)}  # the other was written anew
    shard.write_bytes(before)
    report = audited(data, rebuild=True)
    assert (report.findings, [one.code for one in report.unchecked]) == ([], ["rebuild_impossible"])


# --- with the key in hand: signatures hold, what they vouch for does not ------------------------------


def test_a_row_that_is_said_to_come_from_elsewhere_is_found_though_it_is_signed(data: Path) -> None:
    point_elsewhere(rows(data))
    vouch_again(data, rows(data))
    assert codes(audited(data)) == {"evidence_id_differs"}


def test_a_row_that_is_not_its_provenances_is_found_though_it_is_signed(data: Path) -> None:
    flip(rows(data))
    vouch_again(data, rows(data))
    assert codes(audited(data)) == {"row_differs"}


def test_a_log_that_was_changed_and_signed_again_is_found_by_the_links(data: Path) -> None:
    segment = live(data)
    flip(segment)
    vouch_again(data, evidence(data))
    found = codes(audited(data))
    assert {"link_broken", "line_differs"} <= found
    assert "segment_differs" in found  # the earlier receipts still say what they read


def test_evidence_that_is_not_what_its_id_says_is_found_though_it_is_signed(data: Path) -> None:
    flip(evidence(data))
    vouch_again(data, evidence(data))
    assert "evidence_differs" in codes(audited(data))


def test_a_verdict_changed_in_signed_evidence_is_found_by_making_it_anew(data: Path) -> None:
    report = audited(data, rebuild=True)
    assert (report.outcome, report.unchecked) == ("vouched", [])
    assert report.checked["rebuilt"] >= 6
    rejected, accepted = b'"verdict":"rejected"', b'"verdict":"accepted"'
    shard = next(path for path in products(data, "evidence") if rejected in path.read_bytes())
    shard.write_bytes(shard.read_bytes().replace(rejected, accepted))
    vouch_again(data, shard)
    assert audited(data).outcome == "vouched"  # ids are not made of verdicts, so nothing else can tell
    report = audited(data, rebuild=True)
    assert [one.file for one in report.findings if one.code == "rebuild_differs"] == [named(data, shard)]


def test_a_chain_cut_short_with_everything_it_vouched_for_is_found_by_an_anchor_alone(data: Path) -> None:
    before = audited(data).head
    assert before is not None
    made = receipt_of(data, last(data)).products
    for folder in {(data / product.name).parent for product in made}:
        shutil.rmtree(folder)
    roll_back(data, receipts_too=True)
    assert audited(data).outcome == "vouched"
    assert codes(audited(data, anchor=(before.count, before.last.sha256))) == {"anchor_differs"}
