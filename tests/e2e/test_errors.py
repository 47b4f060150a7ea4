"""What goes wrong is told in four lines, all of it at once, with the right exit code; and nothing is lost or run."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
from click.testing import CliRunner
from kit.images import digit_folders
from safetensors.torch import save_file

from stillroom.cli import main
from stillroom.models import create_model

SHORT = ["teacher=resnet8", "student=resnet8", "train.steps=2", "export=[]"]


def said(*words, code):
    """The command, in this process: what it printed on stderr."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_problem_of_a_recipe_at_once(here):
    (here / "photos.toml").write_text(
        """
        teachr = "resnet20"
        seeds = []
        [data]
        source = "digits"
        sise = 8
        [student]
        network = "resnet8"
        [[methods]]
        name = "hintn"
        [[methods]]
        name = "hinton"
        temprature = 4
        [train]
        step = 5
        lr = "fast"
        precision = "fp8"
        batch = 0
        """
    )
    text = said("run", "photos.toml", code=2)
    for line in (
        "9 problems in photos.toml:",
        "teachr: unknown; did you mean 'teacher'?",
        "teacher: missing",
        "data.sise: unknown; did you mean 'size'?",
        "methods[0].name: no method called 'hintn'; did you mean 'hinton'?",
        "methods[1].temprature: unknown; did you mean 'temperature'?",
        "train.step: unknown; did you mean 'steps'?",
        "train.lr: must be a valid number, got 'fast'",
        "train.precision: must be one of 'auto', 'float32', 'bfloat16', 'float16', got 'fp8'",
        "train.batch: must be greater than or equal to 1, got 0",
    ):
        assert line in text
    for word in ("SR-C400", "why", "effect", "fix"):
        assert word in text
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("task.weight=-1", "task.weight: must be greater than or equal to 0, got -1"),
        ("train.grad_accum_steps=3", "train.batch: must be a multiple of grad_accum_steps, got 64 and 3"),
        ("teacher.finetune=none", "teacher.finetune: 'none' needs teacher.weights"),
        ("teacher.finetune=hed", "teacher.finetune: must be one of 'none', 'head', 'all', got 'hed'"),
        ("methods.0.temperature=hot", "methods[0].temperature: must be a valid number, got 'hot'"),
        ("data.val=0", "data.val: must be above 0"),
        ("student.size=32", "student.size: can't be set here; it follows from the data and the weights"),
        ("methods.0.temperature=-1", "methods[0].temperature must be above 0 and finite, got -1"),
        ("task.smoothing=1.5", "task.smoothing must be at least 0 and below 1, got 1.5"),
        ("methods=auto,hinton", "methods[0].name: 'auto' stands alone"),
        ("methods=dkdd", "methods[0].name: no method called 'dkdd'"),
        (
            'methods=[{name = "fitnet", student_tap = "layer2"}]',
            "methods[0].student_tap: unknown; did you mean 'student_taps'?",
        ),
    ],
)
def test_one_problem(here, override, line):
    assert line in said("check", "digits", override, code=2)


def test_no_such_recipe_and_no_words(here):
    assert "did you mean 'digits'?" in said("run", "digit", code=2)
    assert "give a recipe" in said("run", code=2)
    (here / "torn.toml").write_text("seeds = [0")
    assert "SR-C402 not TOML" in said("run", "torn.toml", code=2)
    assert "SR-C403 not an override" in said("run", "digits", "other", code=2)


def test_a_built_in_recipe_is_copied_once(here):
    said("new", "digits", code=0)
    assert (here / "digits.toml").read_text().startswith("# The demo: 50 labelled digits")
    assert "SR-C404 already exists" in said("new", "digits", code=2)
    assert "SR-C401" in said("new", "digts", code=2)


def test_no_data(here):
    text = said("run", *SHORT, "data=phots/", code=3)
    assert "SR-D101" in text and "phots" in text


def test_too_many_unreadable_images(here):
    root = digit_folders(here / "photos")
    for path in list((root / "4").iterdir())[:6]:
        path.write_bytes(path.read_bytes()[:30])
    text = said("run", *SHORT, "data=photos/", "name=bad", code=3)
    assert "SR-D107" in text and "bad_files.csv" in text
    assert len((here / "runs" / "bad" / "bad_files.csv").read_text().splitlines()) > 4
    assert json.loads((here / "runs" / "bad" / "run.json").read_text())["exit_code"] == 3


def test_a_network_that_is_not_there(here):
    assert "did you mean 'resnet" in said("check", "digits", "teacher.network=resnet21", code=4)
    assert "SR-M303" in said("check", "digits", "student.network=timm/resnet10tt", code=4)


def test_pretrained_without_a_network(here):
    words = ["teacher=timm/resnet10t", "teacher.weights=pretrained", "student=resnet8", "data=digits"]
    text = said("check", *words, code=4)
    assert "SR-N801" in text


def test_other_classes_never_train_silently(here):
    network = create_model("resnet8", classes=7, channels=1, size=8)
    save_file(network.weights(), here / "seven.safetensors", network.metadata())
    words = ["digits", "teacher.network=resnet8", "teacher.width=1.0", "teacher.weights=seven.safetensors"]
    text = said("run", *words, code=4)
    assert "SR-M301" in text and "7 outputs, the data 10 classes" in text
    for remedy in ('finetune = "head"', 'finetune = "all"', "class_map ="):
        assert remedy in text


def test_a_teacher_with_its_classes_in_another_order_is_told(here, capfd):
    """Every digit means another one to this teacher: it is right no more often than chance."""
    network = create_model("resnet8", classes=10, channels=1, size=8)
    save_file(network.weights(), here / "noise.safetensors", network.metadata())
    words = [*SHORT, "data=digits", "teacher.weights=noise.safetensors", "name=order"]
    said("run", *words, "-q", code=0)
    warnings = json.loads((here / "runs" / "order" / "run.json").read_text())["warnings"]
    assert any("SR-M302" in text and "chance" in text for text in warnings)


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_malicious_pickle_is_refused_and_not_run(here):
    with open(here / "teacher.pt", "wb") as file:
        pickle.dump({"state_dict": Bomb(here / "canary")}, file)
    text = said("run", *SHORT, "data=digits", "teacher.weights=teacher.pt", code=4)
    assert "SR-S210" in text and "system" in text and "nothing was executed" in text.lower()
    assert not (here / "canary").exists()


def test_not_a_run_folder(here):
    for verb in ("eval", "export", "bench"):
        assert "SR-C460" in said(verb, here / "nothing", code=2)
    assert "SR-C460" in said("report", here / "nothing", code=2)


def test_errors_as_json(here):
    done = CliRunner().invoke(main, ["run", "digit", "--json"])
    told = json.loads(done.stdout)["error"]
    assert told["code"] == "SR-C401" and told["exit_code"] == 2 and told["fix"]


def test_a_full_disk_is_told_as_one(here, monkeypatch):
    """The libraries' own words for it ("unexpected pos 704 vs 598") never reach the user."""
    import errno

    from stillroom.io import checkpoint

    def full(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    text = said("run", *SHORT, "data=digits", "name=full", code=5)
    assert "SR-R501 disk full" in text
    assert not list((here / "runs").rglob(".tmp-*"))
    assert json.loads((here / "runs" / "full" / "run.json").read_text())["resumable"]


def test_out_of_memory_is_told_as_one(here, monkeypatch):
    import torch

    from stillroom.training import loop

    def greedy(*_):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(loop, "_advance", greedy)
    text = said("run", *SHORT, "data=digits", "name=big", code=5)
    assert "SR-R503 out of memory" in text and "train.grad_accum_steps" in text


def test_a_fault_of_ours_is_named_as_such(here, monkeypatch):
    from stillroom.training import loop

    monkeypatch.setattr(loop, "_advance", lambda *_: 1 / 0)
    text = said("run", *SHORT, "data=digits", "name=ours", code=1)
    assert "internal error: ZeroDivisionError" in text
    assert "Traceback" in (here / "runs" / "ours" / "run.log").read_text()


def test_below_the_gate(here):
    """An int8 file of a student that has learnt nothing agrees too little; everything else is there all the same."""
    words = [*SHORT[:3], "data=digits", "export.0.bits=8", "export.0.agreement=1.0", "name=gate"]
    text = said("run", *words[:-2], "export=[{bits=8, agreement=1.0}]", "name=gate", "-q", code=7)
    assert "SR-X701 agreement" in text
    folder = here / "runs" / "gate"
    assert [path.name for path in (folder / "exports").iterdir()] == ["student-int8.unverified.onnx"]
    assert json.loads((folder / "metrics.json").read_text())["exports"][0]["verified"] is False
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["exit_code"]) == ("unverified", 7)
    assert "UNVERIFIED" in (folder / "report.html").read_text().upper()


@pytest.fixture(autouse=True)
def _leave_no_run(tmp_path):
    yield
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
