"""What a run takes over: its own state from run.json, and the trained teacher of another seed."""

from __future__ import annotations

import pytest

from stillroom.config import recipe
from stillroom.io.run_dir import RunDir
from stillroom.pipeline import run as pipeline
from stillroom.pipeline.resume import ResumeState, Shared, TrainedTeacher, earlier_result
from stillroom.stages.build import teacher_sections
from stillroom.stages.compress import StageRow
from stillroom.teachers.source import CacheDecision

TWO = {"data": "digits", "student": "resnet8", "teacher": ["resnet20", "resnet14"]}


@pytest.fixture
def run(tmp_path):
    run = RunDir.open(tmp_path / "mine", {}, "")
    yield run
    run.close()


def donor(folder, *stages):
    folder.mkdir()
    for stage in stages:
        (folder / f"{stage}.safetensors").write_text(f"{stage} of {folder.name}")
    return TrainedTeacher({stage: folder / f"{stage}.safetensors" for stage in stages}, seed=4)


def reused(run, teacher):
    return pipeline._reuse_teacher(run, ResumeState.read(run), Shared(num_students=2, teacher=teacher))


def test_a_new_run_has_no_state(tmp_path):
    assert ResumeState.read(RunDir(tmp_path)) == ResumeState()


def test_a_run_reads_back_what_it_wrote(run):
    row = {"stage": "prune", "what": "prune", "score": 0.5, "macs": 7, "bytes": 9, "latency_ms": 0.1, "seconds": None}
    run.note(status="stopped", seconds=3.5, data={"fingerprint": "abc"}, teacher_of_seed=4, compress=[row])
    run.note(answers={"kept": True, "why": "it pays", "cache": "x"}, stages={"teacher": {"seconds": 2.0, "steps": 12}})
    assert ResumeState.read(run) == ResumeState(
        status="stopped",
        seconds=3.5,
        fingerprint="abc",
        teacher_seed=4,
        cache=CacheDecision(True, "it pays"),
        rows=(StageRow(**row),),
        stage_seconds={"teacher": 2.0},
        stage_steps={"teacher": 12},
    )


def test_a_reused_teacher_has_its_files_and_its_seed_noted(run, tmp_path):
    assert reused(run, donor(tmp_path / "other", "teacher", "teacher-2")) == 4
    assert run.info == {"students": 2, "teacher_of_seed": 4}
    assert sorted(path.name for path in run.folder.glob("*.safetensors")) == [
        "teacher-2.safetensors",
        "teacher.safetensors",
    ]
    found = earlier_result(run.folder, teacher_sections(recipe.check(TWO).all_teachers), seed=1)
    assert found is None, "a run without a status has not begun"
    run.note(status="running")
    found = earlier_result(run.folder, teacher_sections(recipe.check(TWO).all_teachers), seed=1)
    assert found.teacher.seed == 4, "the seed that trained it, not the one that handed it on"


def test_reusing_continues_where_it_was_killed(run, tmp_path):
    run.note(teacher_of_seed=4)
    run.weights("teacher").write_text("teacher of other")
    assert reused(run, donor(tmp_path / "other", "teacher", "teacher-2")) == 4
    assert run.weights("teacher-2").read_text() == "teacher-2 of other"


def test_a_run_with_a_teacher_of_its_own_keeps_it(run, tmp_path):
    run.weights("teacher").write_text("mine")
    assert reused(run, donor(tmp_path / "other", "teacher", "teacher-2")) is None
    assert run.weights("teacher").read_text() == "mine" and not run.weights("teacher-2").exists()


def test_a_teacher_that_is_not_finished_is_not_handed_on(run):
    run.note(status="failed")
    run.weights("teacher").write_text("the first of two")
    assert earlier_result(run.folder, teacher_sections(recipe.check(TWO).all_teachers), seed=0).teacher is None
