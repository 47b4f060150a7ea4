"""Images without labels through the command: beside labelled ones, and where there are no others."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from kit.command import stillroom
from kit.images import digit_folders, flat_digits
from kit.teachers import knowing
from safetensors.torch import load_file, save_file

import stillroom as sr
from stillroom.cli import main
from stillroom.models import create_model

SHORT = [
    "train.batch=32",
    "train.num_evals=2",
    "train.lr=4e-3",
    "train.precision=float32",
    "teacher.train.precision=float32",
]
FILES = "export=[{bits = 32}, {bits = 8, agreement = 0.5}]"


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A flat folder of 150 digits, and a teacher that knows what they are."""
    folder = tmp_path_factory.mktemp("unlabelled")
    flat_digits(folder / "photos", count=150)
    knowing(folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def flat(home):
    teacher = ["teacher=resnet8", "teacher.weights=teacher.safetensors"]
    words = ["data=photos/", *teacher, "student=resnet8", "student.width=0.5", "train.steps=40", *SHORT, FILES]
    checked = stillroom("check", *words, cwd=home).stdout
    done = stillroom("run", *words, "name=flat", cwd=home)
    return home / "runs" / "flat", checked, done.stdout


def test_check_says_what_there_is_and_what_is_not(flat):
    _, checked, _ = flat
    assert "10 classes, 98 train, 22 val, 30 test" in checked and "150 images have no label" in checked
    assert "no image has a label: the teacher's outputs" in checked
    assert "hinton/kl" in checked and "task/" not in checked


def test_agreement_with_the_teacher_leads_and_accuracy_is_nowhere(flat):
    folder, _, said = flat
    metrics, run = read(folder, "metrics.json"), read(folder, "run.json")
    assert (run["status"], run["task"]["headline"], run["data"]["unlabelled"]) == ("done", "teacher_agreement", 150)
    assert run["data"]["classes"] == [str(k) for k in range(10)]
    assert "teacher_agreement" not in metrics["teacher"], "it agrees with itself"
    for row in (metrics["baseline"], metrics["student"], *metrics["exports"]):
        figure = row["teacher_agreement"]
        assert figure["n"] == 30 and figure["ci95"][0] <= figure["value"] <= figure["ci95"][1]
        assert "compared with the teacher" in figure["how"]
    taught, untaught = (metrics[name]["teacher_agreement"]["value"] for name in ("student", "baseline"))
    assert taught > untaught + 0.3
    assert [(row["bits"], row["verified"]) for row in metrics["exports"]] == [(32, True), (8, True)]
    assert "agreement with the teacher" in said
    for name in ("metrics.json", "run.json", "README.md", "report.html"):
        assert "accura" not in (folder / name).read_text().lower(), name


def test_the_untaught_student_is_as_it_begins_and_val_selects_by_the_same_figure(flat):
    folder, _, _ = flat
    stages = {json.loads(line)["stage"] for line in (folder / "steps.jsonl").read_text().splitlines()}
    assert stages == {"student"}
    looks = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    assert [look["split"] for look in looks] == ["val", "val"]
    finished = sr.open(folder)
    again = finished.evaluate(split="val")["student"]["teacher_agreement"]["value"]
    assert again == pytest.approx(max(look["score"] for look in looks))


def test_report_and_card_say_so(flat):
    folder, _, _ = flat
    card, page = (folder / "README.md").read_text(), (folder / "report.html").read_text()
    value = 100 * read(folder, "metrics.json")["student"]["teacher_agreement"]["value"]
    assert f"The student agrees with its teacher on {value:.1f} % of the test images" in card
    assert "150 of them without a label" in card and "150 without a label" in page
    assert "No image had a label: how often student or teacher are correct was not measured." in card
    assert "Student differs from its teacher" in page and " right, " not in page.partition('id="gallery"')[2]


@pytest.mark.slow
def test_a_finished_run_is_exported_and_judged_again(flat, tmp_path):
    folder = shutil.copytree(flat[0], tmp_path / "flat")
    before = read(folder, "metrics.json")
    sr.open(folder).export(bits=8, agreement=0.5)
    after = read(folder, "metrics.json")["exports"][1]["teacher_agreement"]
    assert after["value"] == before["exports"][1]["teacher_agreement"]["value"]
    shown = json.loads(stillroom("eval", folder, "--json", cwd=tmp_path).stdout)
    assert shown["student"]["teacher_agreement"]["value"] == before["student"]["teacher_agreement"]["value"]
    flat_digits(tmp_path / "others", count=40, start=200)
    found = sr.open(folder).evaluate(str(tmp_path / "others"))
    assert found["student"]["teacher_agreement"]["n"] == 40
    digit_folders(tmp_path / "labelled", each=4, side=8)
    told = stillroom("eval", folder, "data=labelled/", cwd=tmp_path).stdout.splitlines()
    assert told[0].split()[:2] == ["accuracy", "95"], "labels at last, under the teacher's names"
    assert float(told[1].split()[1]) > 70 and told[1].split()[0] == "teacher"


def test_features_alone(home):
    """Vectors need no classes, and no labels: what leads is whether both find the same image nearest."""
    torch.manual_seed(0)
    save_file(
        create_model("timm/test_resnet", classes=10, channels=3, size=8).module.state_dict(), home / "net.safetensors"
    )
    nets = ["teacher=timm/test_resnet", "teacher.weights=net.safetensors", "student=timm/test_efficientnet"]
    words = ["data=photos/", "data.channels=3", "data.size=32", "task=embedding", *nets, "methods=auto", "name=vectors"]
    stillroom("run", *words, "train.steps=6", *SHORT, "export=[]", cwd=home)
    metrics, run = read(home / "runs" / "vectors", "metrics.json"), read(home / "runs" / "vectors", "run.json")
    assert run["data"]["classes"] == [] and "knn" not in metrics["student"]
    figure = metrics["student"]["teacher_agreement"]
    assert figure["value"] == metrics["student"]["agreement"]["value"]
    assert figure["n"] == 30 and "nearest gallery image is the same" in figure["how"]
    assert "agrees with its teacher on" in (home / "runs" / "vectors" / "README.md").read_text()


def test_what_would_teach_nothing_is_refused(home, monkeypatch):
    monkeypatch.chdir(home)
    words = ["check", "data=photos/", "teacher=resnet8", "student=resnet8"]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 3 and "SR-D140 no image has a label, and teacher.finetune is 'all'" in told.stderr
    told = CliRunner().invoke(main, [*words, "teacher.weights=teacher.safetensors", "methods=nkd"])
    assert told.exit_code == 3 and "SR-D142" in told.stderr


def _lines(folder):
    return (folder / "steps.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_further_images_beside_labelled_ones(tmp_path):
    """The student learns from all of them; the others' labels, splits and figures stay what they are."""
    digit_folders(tmp_path / "photos", each=8, side=8)
    flat_digits(tmp_path / "more" / "holidays", count=60, start=1200)
    words = ["data=photos/", "teacher=resnet8", "teacher.train.steps=4", "student=resnet8", *SHORT, "export=[]"]
    for name, further in (("alone", []), ("more", ["data.unlabelled=more"])):
        stillroom("run", *words, *further, "train.epochs=2", f"name={name}", cwd=tmp_path)
    alone, more = tmp_path / "runs" / "alone", tmp_path / "runs" / "more"
    counts = [read(folder, "run.json")["data"] for folder in (alone, more)]
    assert [(one["train"], one["val"], one["test"], one["unlabelled"]) for one in counts] == [
        (50, 10, 20, 0),
        (110, 10, 20, 60),
    ]
    for stage in ("student", "baseline"):
        steps = [sum(f'"stage": "{stage}"' in line for line in _lines(folder)) for folder in (alone, more)]
        assert steps == [4, 7], "two looks at 50, and at 110 images, 32 at a time; untaught as many"
    first = {step["stage"]: step["terms"]["task/ce"] for step in map(json.loads, reversed(_lines(more)))}
    assert first["student"] < 1.8, "of 32 images about 15 have a label, and ln 10 is 2.3"
    assert first["teacher"] > 1.8 and first["baseline"] > 1.8, "who learns from labels alone sees images with one"
    metrics = read(more, "metrics.json")
    assert metrics["student"]["accuracy"]["n"] == 20 and len(metrics["student"]["recall"]["value"]) == 10
    assert "60 of them without a label" in (more / "README.md").read_text()
    assert "without a label" not in (alone / "README.md").read_text()
    seen = sr.open(more).evaluate(split="train")["student"]["accuracy"]["n"]
    assert seen == 50, "an image without a label is neither right nor wrong"
    keys = load_file(alone / "samples" / "predictions.safetensors")["key"]
    assert torch.equal(keys, load_file(more / "samples" / "predictions.safetensors")["key"])
