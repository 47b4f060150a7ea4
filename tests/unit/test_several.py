"""The order of several seeds' runs: whose teacher is taken, what stops all of them and what only one."""

from __future__ import annotations

import json

import pytest

from stillroom.config import recipe
from stillroom.errors import StillroomError
from stillroom.export._errors import OutputMismatch
from stillroom.io.errors import DiskFull
from stillroom.io.files import write_json
from stillroom.pipeline import seeds
from stillroom.pipeline.resume import RunResult, TrainedTeacher
from stillroom.training.errors import TrainingDiverged

FAILURES = {
    "SR-E601": TrainingDiverged(stage="student", step=3, terms="task/ce", folder="x"),
    "SR-X701": OutputMismatch(path="student.onnx", problem="agreement 90%"),
    "SR-R501": DiskFull(path="x", free=0, problem="full"),
}


def read(*seeds, **more):
    return recipe.read("digits", {"seeds": list(seeds), "name": "x", **more})


class Runs:
    """Stands in for `pipeline.run.run`: records its calls, and leaves a run's folder, or a failure, behind."""

    def __init__(self, ends=(), *, trains=True, stage="student"):
        self.asked, self.ends, self.trains, self.stage = [], dict(ends), trains, stage

    def __call__(self, one, place, shared):
        (seed,) = one.seeds
        donor = shared.teacher and shared.teacher.files["teacher"].parent.name
        self.asked.append((seed, place.name, shared.num_students, donor))
        code = self.ends.get(seed)
        failure = FAILURES[code] if code else None
        place.mkdir(parents=True, exist_ok=True)
        ended = {"status": "failed", "exit_code": int(failure.exit)} if failure else {"status": "done", "exit_code": 0}
        write_json(place / "run.json", {"seeds": [seed], "stage": self.stage} | ended)
        finished = self.trains and not self.stage.startswith("teacher")
        if finished:
            (place / "teacher.safetensors").touch()
        if code in (None, "SR-X701"):
            accuracy = {"accuracy": {"value": 0.5 + seed / 100}}
            write_json(place / "metrics.json", dict.fromkeys(("teacher", "baseline", "student"), accuracy))
        if failure and (code == "SR-R501" or self.stage.startswith("teacher")):
            raise failure
        teacher = TrainedTeacher({"teacher": place / "teacher.safetensors"}, seed) if finished else None
        return RunResult(folder=place, teacher=teacher, choice=None, failures=(failure,) if failure else ())


def test_the_first_teacher_is_everybodys(tmp_path):
    do = Runs()
    assert seeds.run(read(4, 0, 2), tmp_path / "x", do) == []
    assert do.asked == [(4, "seed-4", 3, None), (0, "seed-0", 3, "seed-4"), (2, "seed-2", 3, "seed-4")]
    found = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert found["seeds"] == [4, 0, 2] and found["student"]["accuracy"]["value"] == pytest.approx(0.52)
    assert (tmp_path / "x" / "report.html").is_file() and (tmp_path / "x" / "README.md").is_file()


def test_one_seed_is_one_run_in_the_folder_itself(tmp_path):
    do = Runs()
    assert seeds.run(read(4), tmp_path / "x", do) == []
    assert do.asked == [(4, "x", 1, None)] and not (tmp_path / "x" / "report.html").exists()


def test_a_teacher_that_nobody_trains_is_handed_to_nobody(tmp_path):
    do = Runs(trains=False)
    seeds.run(read(0, 1), tmp_path / "x", do)
    assert [donor for *_, donor in do.asked] == [None, None]


def test_more_seeds_may_come_later_and_take_the_teacher_that_is_there(tmp_path):
    seeds.run(read(0, 1), tmp_path / "x", Runs())
    do = Runs()
    seeds.run(read(5, 0, 1), tmp_path / "x", do)
    assert do.asked[0] == (5, "seed-5", 3, "seed-0")
    assert json.loads((tmp_path / "x" / "metrics.json").read_text())["seeds"] == [5, 0, 1]
    seeds.run(read(1, 0), tmp_path / "x", Runs())
    assert json.loads((tmp_path / "x" / "metrics.json").read_text())["seeds"] == [1, 0]


@pytest.mark.parametrize(("code", "measured"), [("SR-E601", [1, 2]), ("SR-X701", [0, 1, 2])])
def test_what_is_one_seeds_own_does_not_stop_the_others(tmp_path, code, measured):
    do = Runs({0: code, 2: "SR-X701"})
    failures = seeds.run(read(0, 1, 2), tmp_path / "x", do)
    assert [failure.code for failure in failures] == [code, "SR-X701"]
    assert [donor for *_, donor in do.asked] == [None, "seed-0", "seed-0"]
    assert json.loads((tmp_path / "x" / "metrics.json").read_text())["seeds"] == measured


@pytest.mark.parametrize(("code", "stage"), [("SR-R501", "student"), ("SR-E601", "teacher"), ("SR-E601", "teacher-2")])
def test_what_would_stop_every_seed_stops_at_once(tmp_path, code, stage):
    do = Runs({0: code}, stage=stage)
    with pytest.raises(StillroomError) as caught:
        seeds.run(read(0, 1), tmp_path / "x", do)
    assert caught.value.code == code and len(do.asked) == 1
    assert not (tmp_path / "x" / "metrics.json").exists()


def test_a_teacher_that_is_not_finished_is_handed_to_nobody(tmp_path):
    with pytest.raises(StillroomError):
        seeds.run(read(0, 1), tmp_path / "x", Runs({0: "SR-R501"}, stage="teacher-2"))
    do = Runs()
    seeds.run(read(1, 0), tmp_path / "x", do)
    assert do.asked[0] == (1, "seed-1", 2, None)


def test_where_every_seed_failed_there_is_no_page(tmp_path):
    failures = seeds.run(read(0, 1), tmp_path / "x", Runs({0: "SR-E601", 1: "SR-E601"}))
    assert len(failures) == 2 and not (tmp_path / "x" / "report.html").exists()
    with pytest.raises(StillroomError) as caught:
        seeds.MultiSeedRun(tmp_path / "x")
    assert caught.value.code == "SR-C432"


def test_one_run_and_several_never_share_a_folder(tmp_path):
    seeds.run(read(0), tmp_path / "one", Runs())
    seeds.run(read(0, 1), tmp_path / "two", Runs())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for which, name, theirs in (((0, 1), "one", "one run"), ((0,), "two", "runs of several seeds")):
        do = Runs()
        with pytest.raises(StillroomError) as caught:
            seeds.run(read(*which), tmp_path / name, do)
        assert caught.value.code == "SR-C431" and f"holds {theirs}," in str(caught.value) and not do.asked
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_another_recipe_is_refused(tmp_path):
    seeds.run(read(0, 1), tmp_path / "x", Runs())
    do = Runs()
    with pytest.raises(StillroomError) as caught:
        seeds.run(read(0, 1, 2, baseline=False), tmp_path / "x", do)
    assert caught.value.code == "SR-C410" and "baseline: True there, False here" in str(caught.value)
    assert "seeds" not in str(caught.value) and not do.asked


def test_other_processes_write_nothing(tmp_path):
    do = Runs()
    seeds.run(read(0, 1), tmp_path / "x", do, writes=False)
    assert len(do.asked) == 2
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"seed-0", "seed-1"}


def test_several_opens_what_is_there(tmp_path, monkeypatch):
    seeds.run(read(0, 1), tmp_path / "x", Runs({1: "SR-X701"}))
    found = seeds.MultiSeedRun(tmp_path / "x")
    assert found.metrics["seeds"] == [0, 1] and repr(found) == f"Several({str(tmp_path / 'x')!r})"
    (tmp_path / "x" / "report.html").unlink()
    assert found.report().is_file()
    with pytest.raises(StillroomError) as caught:
        seeds.MultiSeedRun(tmp_path)
    assert caught.value.code == "SR-C460"
