import hashlib
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from distill.engine.identity import evidence_id_of
from distill.engine.products import id_of, line_with, lines_from
from schemas.runs import Run
from tests.unit.distill.builders import run, verdict

SAFE = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | SAFE | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=3)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def made(record: dict[str, Any]) -> str:
    return evidence_id_of(Run.model_validate(record))


@given(MESSAGES)
def test_the_id_depends_on_content_and_not_on_how_it_is_written(messages: list[dict[str, Any]]) -> None:
    record = run("r1", request={"messages": messages})
    rewritten = Run.model_validate_json(orjson.dumps(shuffled(record)))
    assert made(record) == evidence_id_of(rewritten)


@given(st.text(), st.text())
def test_two_outputs_have_two_ids(first: str, second: str) -> None:
    ids = {made(run("r1", output={"content": text})) for text in (first, second)}
    assert len(ids) == len({first, second})


def test_what_becomes_known_later_does_not_change_the_id() -> None:
    early = run("r1")
    late = run(
        "r1", ts="2027-01-01T00:00:00Z", verdict=verdict(), latency_ms=3.0, principal="p", config_hash="c"
    )
    assert made(early) == made(late)
    assert made(early) != made(run("r2", question="question r1", answer="answer r1"))


def test_the_id_is_the_one_that_any_other_program_computes() -> None:
    canonical = (
        b'{"payload":{"input":{"messages":[{"content":"q","role":"user"}],"params":{},"retrieved_context":[],'
        b'"tools":null},"model":{"digest":null,"name":"tiny","provider":"ollama"},"output":{"content":"a",'
        b'"finish_reason":"stop","tool_calls":null},"role":null,"task":null},"source":{"key":"r1",'
        b'"kind":"stillhouse"},"version":"1"}'
    )
    assert made(run("r1", question="q", answer="a")) == hashlib.sha256(canonical).hexdigest()


@given(st.sets(st.integers(min_value=0, max_value=60), max_size=12), st.integers(min_value=0, max_value=61))
def test_a_sorted_file_is_entered_at_the_right_line(
    tmp_path_factory: Any, have: set[int], asked: int
) -> None:
    path: Path = tmp_path_factory.mktemp("sorted") / "evidence.jsonl"
    ids = [f"{number:064x}" for number in sorted(have)]
    path.write_bytes(
        b"".join(
            b'{"evidence_id":"%s","pad":"%s"}\n' % (one.encode(), b"x" * (int(one, 16) * 7)) for one in ids
        )
    )
    after = f"{asked:064x}"
    assert [id_of(line) for line in lines_from(path, after)] == [one for one in ids if one > after]
    found = line_with(path, after)
    assert (id_of(found) if found else None) == (after if after in ids else None)
