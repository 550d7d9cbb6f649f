"""Exported files in the hands of the programs that trainers read them with."""

import contextlib
import copy
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.exports.targets import Row, Unfit
from distill.engine.exports.trainers import TARGETS
from tests.unit.distill.builders import Json, distill, done, episode, run, verdict
from tests.unit.distill.exports.stories import SPLITS, TOOL_CALL, exported, folder_of, various

PAIRS = [(kind, target) for kind, targets in TARGETS.items() for target in targets]

TRL_KEY_SETS: Final = (
    {"messages"},
    {"prompt"},
    {"prompt", "completion"},
    {"prompt", "chosen", "rejected"},
    {"chosen", "rejected"},
    {"prompt", "completion", "label"},
)
"""The six that its chat templates are applied to; `tools` may come with any."""


def records() -> list[Json]:
    talk = run("talk", verdict=verdict())
    talk["request"]["messages"] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    calls = run("calls", verdict=verdict())
    calls["request"]["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    calls["output"] = {"content": None, "tool_calls": [{**TOOL_CALL, "index": 0}], "finish_reason": "stop"}
    pairs = [one for number in range(4) for one in episode(f"o{number}", code=f"fill.code{number}")]
    for number, one in enumerate(pairs):
        one["output"]["content"] += f" {'abcdefgh'[number] * 9}"
    return [talk, calls, *pairs, *various(12)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A dataset for every target, made of the same records."""
    data = tmp_path_factory.mktemp("targets")

    async def story() -> dict[tuple[str, str], Path]:
        made = {}
        async with distill(data) as client:
            first = await exported(client, records(), kind="rag")
            for kind, target in PAIRS:
                job = await done(client, stage="export", kind=kind, target=target)
                made[kind, target] = folder_of(data, job)
            assert made["rag", "stillhouse"] == folder_of(data, first)
        return made

    import anyio

    return anyio.run(story)


def rows_in(folder: Path) -> list[Json]:
    files = [folder / f"{split}.jsonl" for split in SPLITS]
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize(("kind", "target"), PAIRS)
def test_the_card_is_valid_and_its_records_can_be_read(
    folders: dict[tuple[str, str], Path], kind: str, target: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        mlcroissant: Any = importlib.import_module("mlcroissant")

        folder = folders[kind, target]
        dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
        assert not dataset.metadata.ctx.issues.errors
        assert orjson.loads((folder / "croissant.json").read_bytes())["conformsTo"].endswith("/1.1")
        read = list(dataset.records("train"))
    trained = (folder / "train.jsonl").read_bytes().splitlines()
    assert len(read) == len(trained) > 0


@pytest.mark.parametrize(
    ("kind", "target"), [("sft", "openai"), ("sft", "together"), ("preference", "openai")]
)
def test_together_takes_the_files(folders: dict[tuple[str, str], Path], kind: str, target: str) -> None:
    from together.lib.utils import check_file

    for split in SPLITS:
        path = folders[kind, target] / f"{split}.jsonl"
        if path.stat().st_size:
            report = check_file(path)
            assert report["is_check_passed"], report


def features_of(kind: str, target: str) -> Any:
    datasets: Any = importlib.import_module("datasets")

    text = datasets.Value("string")
    message = {"role": text, "content": text}
    calls = [{"id": text, "type": text, "function": {"name": text, "arguments": text}}]
    turn = {"from": text, "value": text}
    columns: dict[tuple[str, str], dict[str, Any]] = {
        ("sft", "trl"): {
            "prompt": [{**message, "tool_calls": calls}],
            "completion": [{**message, "tool_calls": calls}],
            "tools": text,
        },
        ("sft", "together"): {"messages": [message]},
        ("sft", "llamafactory"): {"system": text, "conversations": [turn]},
        ("preference", "trl"): {"prompt": [message], "chosen": [message], "rejected": [message]},
        ("preference", "axolotl"): {"messages": [message], "chosen": message, "rejected": message},
        ("preference", "llamafactory"): {
            "system": text,
            "conversations": [turn],
            "chosen": turn,
            "rejected": turn,
        },
        ("preference", "openai"): {
            "input": {"messages": [message]},
            "preferred_output": [message],
            "non_preferred_output": [message],
        },
    }
    return datasets.Features(columns[kind, target])


@pytest.mark.parametrize(
    ("kind", "target"), [pair for pair in PAIRS if pair not in (("rag", "stillhouse"), ("sft", "openai"))]
)
def test_datasets_reads_every_row_with_one_type_a_column(
    folders: dict[tuple[str, str], Path], kind: str, target: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        datasets: Any = importlib.import_module("datasets")

        folder = folders[kind, target]
        files = [
            str(folder / f"{split}.jsonl") for split in SPLITS if (folder / f"{split}.jsonl").stat().st_size
        ]
        read = datasets.Dataset.from_json(files, features=features_of(kind, target), cache_dir=str(tmp_path))
    assert len(read) == len(rows_in(folder)) > 0


@pytest.mark.parametrize(("kind", "target"), [("sft", "trl"), ("preference", "trl")])
def test_every_row_for_trl_has_one_of_its_key_sets(
    folders: dict[tuple[str, str], Path], kind: str, target: str
) -> None:
    for row in rows_in(folders[kind, target]):
        assert set(row) - {"tools"} in TRL_KEY_SETS
        assert all(type(row[name]) is list for name in set(row) - {"tools"})
        assert all({"role", "content"} <= set(one) for name in set(row) - {"tools"} for one in row[name])


def test_llamafactory_finds_its_columns(folders: dict[tuple[str, str], Path]) -> None:
    for kind in ("sft", "preference"):
        folder = folders[kind, "llamafactory"]
        for entry in orjson.loads((folder / "dataset_info.json").read_bytes()).values():
            assert entry["ranking"] == (kind == "preference")
            for line in (folder / entry["file_name"]).read_bytes().splitlines():
                row = orjson.loads(line)
                assert set(row) <= set(entry["columns"].values())
                speakers = [turn["from"] for turn in row["conversations"]]
                assert speakers == (["human", "gpt"] * len(speakers))[: len(speakers)]


def test_openai_rows_end_with_the_answer_and_learn_nothing_else(
    folders: dict[tuple[str, str], Path],
) -> None:
    for row in rows_in(folders["sft", "openai"]):
        assert set(row) <= {"messages", "tools"}
        assert row["messages"][-1]["role"] == "assistant"
        for message in row["messages"][:-1]:
            assert message["role"] != "assistant" or message["weight"] == 0
        for call in row["messages"][-1].get("tool_calls", ()):
            assert set(call) == {"id", "type", "function"}


# --- our own checkers -------------------------------------------------------------------------

SAMPLES: Final[dict[str, Json]] = {
    "rag": {"evidence_id": "0" * 64, "task": None, "role": None, "query": "q", "text": "t"},
    "sft": {"messages": [{"role": "user", "content": "q"}], "answer": {"content": "a"}},
    "preference": {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "chosen": {"content": "a"},
        "rejected": {"content": "b"},
    },
}


def extra_key(row: Row) -> None:
    row["provenance"] = 1


def lost_key(row: Row) -> None:
    del row[list(row)[-1]]


def wrong_type(row: Row) -> None:
    name = next(name for name in ("query", "conversations", "messages", "prompt", "input") if name in row)
    row[name] = 7


@pytest.mark.parametrize("spoil", [extra_key, lost_key, wrong_type])
@pytest.mark.parametrize(("kind", "target"), PAIRS)
def test_a_spoilt_row_is_refused(kind: str, target: str, spoil: Callable[[Row], None]) -> None:
    row = TARGETS[kind][target].form(copy.deepcopy(SAMPLES[kind]))
    TARGETS[kind][target].check(row)
    spoil(row)
    with pytest.raises(Unfit, match="not what the target takes") as caught:
        TARGETS[kind][target].check(row)
    assert caught.value.code == "row.invalid"


contents = st.one_of(st.none(), st.text(max_size=5), st.just([{"type": "text", "text": "x"}]), st.just([1]))
messages: st.SearchStrategy[list[Json]] = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(
                ["system", "developer", "user", "assistant", "tool", "x", ["user"], None]
            ),
            "content": contents,
        },
        optional={
            "name": st.just("n"),
            "tool_calls": st.one_of(st.just([TOOL_CALL]), st.just([{}]), st.just(3)),
            "tool_call_id": st.just("c1"),
            "weight": st.just(1),
        },
    ),
    max_size=4,
)
outputs = st.fixed_dictionaries(
    {"content": st.one_of(st.none(), st.text(max_size=3))},
    optional={
        "tool_calls": st.one_of(st.none(), st.just([TOOL_CALL]), st.just([{"function": {"name": "f"}}]))
    },
)


@settings(max_examples=150)
@given(st.sampled_from(PAIRS), messages, outputs, outputs, st.booleans())
def test_whatever_a_form_makes_is_a_row_or_is_refused_by_name(
    pair: tuple[str, str], said: list[Json], one: Json, other: Json, tools: bool
) -> None:
    kind, target = pair
    sample = {
        "rag": SAMPLES["rag"],
        "sft": {"messages": said, "answer": one},
        "preference": {"messages": said, "chosen": one, "rejected": other},
    }[kind]
    if tools and kind != "rag":
        sample = {**sample, "tools": [{"type": "function", "function": {"name": "f"}}]}
    before = copy.deepcopy(sample)
    with contextlib.suppress(Unfit):
        row = TARGETS[kind][target].form(sample)
        TARGETS[kind][target].check(row)
        assert orjson.loads(orjson.dumps(row)) == row
    assert sample == before
