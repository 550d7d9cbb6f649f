"""The small laws: how texts are grouped, durations read, files checked."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.backends import ModelFile, ModelNotFound, WeightsRefused
from modeld.engine.batches import batches
from modeld.routes.requests import ChatRequest

LENGTHS = st.lists(st.integers(1, 300), max_size=60)


@given(lengths=LENGTHS, items_max=st.integers(1, 20), tokens_max=st.integers(256, 1024))
def test_every_text_is_in_one_group_and_no_group_is_too_large(
    lengths: list[int], items_max: int, tokens_max: int
) -> None:
    sequences = [[0] * length for length in lengths]
    groups = list(batches(sequences, items_max=items_max, tokens_max=tokens_max))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[index] for index in group)
        assert len(group) <= items_max
        assert padded <= tokens_max or len(group) == 1


@pytest.mark.parametrize(
    ("form", "seconds"),
    [
        (None, None),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("5\u00b5s", 5e-6),
        ("0", 0.0),
        ("0s", 0.0),
        (0, 0.0),
        (300, 300.0),
        (2.5, 2.5),
        (-1, -1.0),
        ("-1m", -1.0),
        ("-1s", -1.0),
        (10**12, -1.0),
    ],
)
def test_keep_alive_has_ollamas_forms(form: Any, seconds: float | None) -> None:
    assert ChatRequest.model_validate({"model": "m", "keep_alive": form}).keep_alive == seconds


@pytest.mark.parametrize("form", ["300", "-1", "1.5", "", "m", "5 m", "5x", "1h30", [], {}, False])
def test_and_no_others(form: Any) -> None:
    with pytest.raises(ValueError, match="keep_alive"):
        ChatRequest.model_validate({"model": "m", "keep_alive": form})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('model packages are never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_is_found_without_importing_its_package(package: Path) -> None:
    (package / "model.bin").write_bytes(b"weights")
    file = ModelFile("weights_of_a_test", "model.bin", hashlib.sha256(b"weights").hexdigest())
    assert file.verified() == package / "model.bin"
    assert "weights_of_a_test" not in sys.modules


def test_a_file_that_is_not_the_known_one_is_refused(package: Path) -> None:
    (package / "model.bin").write_bytes(b"tampered")
    with pytest.raises(WeightsRefused, match="has sha256"):
        ModelFile("weights_of_a_test", "model.bin", "0" * 64).verified()


def test_a_missing_file_and_a_missing_package_are_told_apart(package: Path) -> None:
    assert package.is_dir()
    with pytest.raises(ModelNotFound, match="weights_of_a_test lacks model"):
        ModelFile("weights_of_a_test", "model.bin", "0" * 64).locate()
    with pytest.raises(ModelNotFound, match="package no_such is not installed"):
        ModelFile("no_such", "model.bin", "0" * 64).locate()
