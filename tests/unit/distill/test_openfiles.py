"""Files that are read here and there: as many as there are, with few of them open."""

from pathlib import Path

import pytest

from distill.engine.openfiles import OPEN_MAX, OpenFiles


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_any_number_of_files_is_read_with_few_of_them_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(3 * OPEN_MAX)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%03d of these" % number)
    before = descriptors()
    with OpenFiles() as files:
        for _ in range(2):
            assert [files.read(path, 0, 3) for path in paths] == [b"%03d" % one for one in range(len(paths))]
            assert descriptors() - before <= OPEN_MAX
        assert files.read(paths[0], 4, 100) == b"of these"
    assert descriptors() == before


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with OpenFiles() as files, pytest.raises(FileNotFoundError):
        files.read(tmp_path / "none", 0, 1)
