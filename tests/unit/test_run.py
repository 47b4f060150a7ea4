"""The run folder: whose it is, and what it remembers."""

from __future__ import annotations

import pytest

from stillroom.errors import StillroomError
from stillroom.io.files import write_json
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


def donor(folder, *names, **info):
    folder.mkdir()
    write_json(folder / "run.json", {"seeds": [4], **info})
    for name in names:
        (folder / name).write_text(f"{name} of {folder.name}")
    return folder


def test_an_adopted_teacher_is_the_same_file_and_its_seed_is_noted(tmp_path):
    other = donor(tmp_path / "other", "teacher.safetensors", "teacher-2.safetensors", "student.safetensors")
    run = open_run(tmp_path / "mine")
    run.note(seeds=[1])
    run.reuse_teacher(other)
    assert run.info == {"seeds": [1], "teacher_of_seed": 4}
    assert sorted(path.name for path in run.folder.glob("*.safetensors")) == [
        "teacher-2.safetensors",
        "teacher.safetensors",
    ]
    assert (run.folder / "teacher.safetensors").samefile(other / "teacher.safetensors")  # on the disk once
    third = open_run(tmp_path / "third")
    third.reuse_teacher(run.folder)
    assert third.info == {"teacher_of_seed": 4}  # whose it was, not who handed it on
    run.close()
    third.close()


def test_adopting_goes_on_where_it_was_killed(tmp_path):
    other = donor(tmp_path / "other", "teacher.safetensors", "teacher-2.safetensors")
    run = open_run(tmp_path / "mine")
    run.note(teacher_of_seed=4)
    (run.folder / "teacher.safetensors").write_text("teacher.safetensors of other")
    run.reuse_teacher(other)
    assert (run.folder / "teacher-2.safetensors").read_text() == "teacher-2.safetensors of other"
    run.close()


def test_a_run_with_a_teacher_of_its_own_takes_none(tmp_path):
    other = donor(tmp_path / "other", "teacher.safetensors", "teacher-2.safetensors")
    run = open_run(tmp_path / "mine")
    (run.folder / "teacher.safetensors").write_text("mine")
    run.reuse_teacher(other)
    assert run.info == {} and not (run.folder / "teacher-2.safetensors").exists()
    run.reuse_teacher(donor(tmp_path / "none"))
    assert run.info == {}
    run.close()


def test_a_file_system_without_second_names_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    run = open_run(tmp_path / "mine")
    run.reuse_teacher(donor(tmp_path / "other", "teacher.safetensors"))
    assert (run.folder / "teacher.safetensors").read_text() == "teacher.safetensors of other"
    run.close()
