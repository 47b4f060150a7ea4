"""A file is whole or absent, what is left by a kill is swept, and a full disk is told once."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stillroom.errors import StillroomError
from stillroom.io.files import TEMPORARY, atomic_write, disk_full_errors, remove_unfinished, scratch_folder


def test_a_draft_replaces_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "f.bin"
    with atomic_write(path) as draft:
        draft.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_write(path) as draft:
        draft.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["f.bin"]


def test_a_scratch_folder_is_beside_the_file_and_vanishes(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "f.bin"
    with pytest.raises(RuntimeError, match="half way"), scratch_folder(path) as folder:
        assert folder.parent == path.parent and folder.name.startswith(TEMPORARY)
        (folder / "inner").mkdir()
        raise RuntimeError("half way")
    assert not list(path.parent.iterdir())


def test_sweep_removes_what_a_kill_left_and_nothing_else(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "f.bin") as folder, atomic_write(tmp_path / "f.bin") as draft:
        left = [tmp_path / "deep" / folder.name, tmp_path / draft.name]
        draft.write_bytes(b"whole")
    left[0].mkdir(parents=True)
    (left[0] / "float.onnx").write_bytes(b"half")
    left[1].write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["deep", "f.bin"]


def test_a_full_disk_is_told_once_however_deep(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    with pytest.raises(StillroomError) as caught, disk_full_errors(path), disk_full_errors(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code == "SR-R501" and isinstance(caught.value.__cause__, OSError)
