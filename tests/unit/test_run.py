"""The run folder: whose it is, and what it remembers."""

from __future__ import annotations

import pytest

from stillroom.errors import StillroomError
from stillroom.io.run_dir import RunDir, differences, read_stream


def open_run(folder, recipe=None, toml="a = 1\n", **more):
    return RunDir.open(folder, recipe or {"a": 1}, toml, **more)


def test_a_second_owner_is_refused_until_the_first_lets_go(tmp_path):
    first = open_run(tmp_path)
    with pytest.raises(StillroomError) as caught:
        open_run(tmp_path)
    assert caught.value.code == "SR-R510" and "pid" in str(caught.value)
    first.close()
    open_run(tmp_path).close()


def test_another_recipe_is_refused_with_every_difference(tmp_path):
    open_run(tmp_path).close()
    with pytest.raises(StillroomError) as caught:
        open_run(tmp_path, {"a": 2, "b": {"c": 3}})
    assert "a: 1 there, 2 here" in str(caught.value) and "b: None there" in str(caught.value)
    open_run(tmp_path).close()  # the refused one holds nothing


def test_differences_name_the_path():
    assert differences({"train": {"lr": 1, "batch": 2}}, {"train": {"lr": 3, "batch": 2}}) == [
        "train.lr: 1 there, 3 here"
    ]


def test_notes_are_laid_over_each_other_and_warnings_are_kept_once(tmp_path):
    run = open_run(tmp_path)
    run.note(status="running", stage="teacher")
    run.note(stage="student")
    run.warn("odd")
    run.warn("odd")
    assert run.info == {"status": "running", "stage": "student", "warnings": ["odd"]}
    run.close()


def test_rewinding_forgets_later_steps_of_one_stage_and_a_torn_line(tmp_path):
    run = open_run(tmp_path)
    for stage in ("teacher", "student"):
        for step in (1, 2, 3):
            run.append("steps.jsonl", {"stage": stage, "step": step, "loss": float("nan")})
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"stage": "student", "st')
    run.rewind("student", 1)
    kept = [(line["stage"], line["step"]) for line in read_stream(tmp_path, "steps.jsonl")]
    assert kept == [("teacher", 1), ("teacher", 2), ("teacher", 3), ("student", 1)]
    run.append("steps.jsonl", {"stage": "student", "step": 2})
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 5
    run.close()


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    run = open_run(tmp_path, writes=False)
    run.note(status="running")
    run.append("steps.jsonl", {"step": 1})
    run.rewind("student", 0)
    run.save_weights("student", {}, {})
    assert not list(tmp_path.iterdir())


def weights(folder, name="teacher.safetensors"):
    folder.mkdir()
    (folder / name).write_text(f"{name} of {folder.name}")
    return folder / name


def test_copied_weights_are_the_same_file(tmp_path):
    run, file = open_run(tmp_path / "mine"), weights(tmp_path / "other")
    run.copy_weights("teacher", file)
    assert run.weights("teacher").samefile(file)  # on the disk once
    run.close()


def test_weights_that_exist_are_not_replaced(tmp_path):
    run = open_run(tmp_path / "mine")
    run.weights("teacher").write_text("mine")
    run.copy_weights("teacher", weights(tmp_path / "other"))
    assert run.weights("teacher").read_text() == "mine"
    run.close()


def test_a_file_system_without_second_names_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    run = open_run(tmp_path / "mine")
    run.copy_weights("teacher", weights(tmp_path / "other"))
    assert (run.folder / "teacher.safetensors").read_text() == "teacher.safetensors of other"
    run.close()
