"""The audit of a whole folder, and what it can tell with and without something kept elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import orjson
import pytest

from distill.engine import keys, offline
from distill.engine.audit import AuditOptions, audit
from distill.engine.audit.report import Code, Reason
from distill.engine.progress import Progress
from distill.engine.receipts import FOLDER, HEAD
from schemas.canonical import canonical_bytes
from schemas.proof import Audit
from tests.unit.distill import vouched
from tests.unit.distill.builders import run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    vouched.build(tmp_path / "data")
    return tmp_path / "data"


def audited(data: Path, **options: object) -> Audit:
    return audit(data, AuditOptions(**options), Progress())  # type: ignore[arg-type]  # as the test says


def codes(report: Audit) -> set[str]:
    return {finding.code for finding in report.findings}


def test_a_whole_folder_is_vouched_for(data: Path) -> None:
    report = audited(data)
    assert (report.outcome, report.findings, report.unchecked) == ("vouched", [], [])
    assert report.checked["receipts"] == 3
    assert report.checked["links"] == 12 + 12 + 1 + 1  # rows, evidence, one in each quarantine
    assert report.head is not None
    assert report.head.count == 3


def test_the_sample_is_a_part_and_can_be_drawn_again(data: Path) -> None:
    assert audited(data, sample=2, seed=5).checked["links"] < audited(data, sample=None).checked["links"]
    assert audited(data, sample=2, seed=5) == audited(data, sample=2, seed=5)


def test_a_stage_that_ran_again_stands_in_for_its_first_run(data: Path) -> None:
    segment = data / "log" / "runs-000002.jsonl"
    segment.write_bytes(segment.read_bytes() + canonical_bytes(run("late")) + b"\n")
    assert audited(data).outcome == "vouched"
    assert audited(data).checked["lines_not_yet_read"] == 1
    vouched.materialize(data)
    vouched.score(data)
    report = audited(data)
    assert (report.outcome, report.findings) == ("vouched", [])
    assert report.checked["lines_not_yet_read"] == 0


def test_categories_of_evidence_that_nobody_vouches_for_are_found(data: Path) -> None:
    shard = data / "distill" / "evidence" / "runs-000002.jsonl"
    original = shard.read_bytes()
    shard.write_bytes(original.replace(b'"role":"user"', b'"role":"user" '))
    vouched.score(data)
    shard.write_bytes(original)
    assert codes(audited(data)) == {"material_unvouched"}
    vouched.score(data)
    assert audited(data).outcome == "vouched"


def test_an_unfinished_line_is_not_a_finding(data: Path) -> None:
    segment = data / "log" / "runs-000002.jsonl"
    segment.write_bytes(segment.read_bytes() + b'{"schema":')
    report = audited(data)
    assert report.outcome == "partially_vouched"
    assert [one.code for one in report.unchecked] == ["tail_unfinished"]


def test_a_line_that_is_no_record_is_found_even_where_nothing_is_signed_yet(data: Path) -> None:
    segment = data / "log" / "runs-000002.jsonl"
    end = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + b"nonsense\n")
    (finding,) = audited(data).findings
    assert (finding.code, finding.offset) == ("line_invalid", end)


def test_nothing_but_a_log_is_not_vouched_for(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "runs-000001.jsonl").write_bytes(canonical_bytes(run("r1")) + b"\n")
    report = audited(tmp_path)
    assert report.outcome == "partially_vouched"
    assert [one.code for one in report.unchecked] == ["receipts_none"]


def test_what_an_interrupted_write_left_is_no_finding(data: Path) -> None:
    for name in (
        "distill/evidence/x.jsonl.tmp",
        "distill/receipts/.HEAD.dsse.json.abc",
        "datasets/.export-1/a",
    ):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"half")
    assert audited(data).outcome == "vouched"


def test_findings_are_bounded(data: Path) -> None:
    for path in (data / "distill" / "evidence").iterdir():
        path.write_bytes(b"x\n" * 100)
    report = audited(data, findings_max=10)
    assert len(report.findings) == 10
    assert report.findings_left_out > 10


# --- what only an outside copy can tell ---------------------------------------------------------


def _rewrite(data: Path) -> None:
    """What somebody who has the private key can do: begin again, as if the first row had never been."""
    for path in (data / FOLDER).iterdir():
        path.unlink()
    for path in (data / vouched.DATASET).iterdir():
        path.unlink()
    vouched.materialize(data)
    vouched.score(data)
    vouched.export(data)


def test_a_chain_rewritten_with_the_key_is_found_by_an_anchor_alone(data: Path) -> None:
    head = audited(data).head
    assert head is not None
    _rewrite(data)
    assert audited(data).outcome == "vouched"
    assert codes(audited(data, anchor=(head.count, head.last.sha256))) == {"anchor_differs"}


def test_an_anchor_holds_as_the_chain_grows(data: Path) -> None:
    head = audited(data).head
    assert head is not None
    vouched.score(data)
    assert audited(data, anchor=(head.count, head.last.sha256)).outcome == "vouched"


def test_a_chain_of_another_key_is_found_by_the_key_kept_elsewhere(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pem"
    kept.write_bytes(keys.public_path(data).read_bytes())
    assert audited(data, public_key=kept).outcome == "vouched"
    keys.private_path(data).unlink()
    (data / FOLDER / HEAD).unlink()
    for path in (data / FOLDER).iterdir():
        path.unlink()
    keys.generate(data)
    _rewrite(data)
    assert audited(data).outcome == "vouched"
    assert "key_unknown" in codes(audited(data, public_key=kept))


# --- the command ------------------------------------------------------------------------------


def offline_run(capfdbinary: pytest.CaptureFixture[bytes], *arguments: object) -> tuple[int, bytes, bytes]:
    status = offline.main([str(argument) for argument in arguments])
    out, err = capfdbinary.readouterr()
    return status, out, err


def _damage(data: Path) -> None:
    (data / "distill" / "scored" / "runs-000001.jsonl").unlink()


def _torn(data: Path) -> None:
    with (data / "log" / "runs-000002.jsonl").open("ab") as file:
        file.write(b"{")


@pytest.mark.parametrize(
    ("change", "status"), [(lambda _: None, 0), (_damage, 1), (_torn, 3)], ids=["whole", "broken", "partial"]
)
def test_the_status_tells(
    data: Path, change: Callable[[Path], None], status: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    change(data)
    found, out, err = offline_run(capfdbinary, "audit", "--data", data, "--all")
    assert found == status
    assert Audit.model_validate_json(out).sample is None
    assert b"progress 1.00" in err or b"progress 0." in err


@pytest.mark.parametrize(
    "option", [["--sample", "x"], ["--sample", "1", "--all"], ["--anchor", "3"], ["--x"]]
)
def test_wrong_usage_is_2(data: Path, option: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        offline.main(["audit", "--data", str(data), *option])
    assert raised.value.code == 2


def test_no_folder_is_2(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    status, out, err = offline_run(capfdbinary, "audit", "--data", tmp_path / "none")
    assert (status, out) == (2, b"")
    assert b"there is no folder" in err


def test_keygen_makes_one_key(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    status, out, _ = offline_run(capfdbinary, "keygen", "--data", tmp_path)
    assert status == 0
    assert orjson.loads(out)["key_id"] == keys.load(tmp_path).public.id
    assert b"PRIVATE" not in out
    status, out, err = offline_run(capfdbinary, "keygen", "--data", tmp_path)
    assert (status, out) == (1, b"")
    assert b"not overwritten" in err


def test_every_code_is_documented() -> None:
    page = (ROOT / "docs" / "proof.md").read_text()
    known = {*get_args(Code), *get_args(Reason)}
    assert [code for code in sorted(known) if f"`{code}`" not in page] == []
    source = "".join(path.read_text() for path in (ROOT / "distill" / "engine" / "audit").glob("*.py"))
    assert [code for code in sorted(known) if source.count(f'"{code}"') < 2] == []
