"""What would spoil a distillation without a word: refused or said, by `check` and by `run`."""

from __future__ import annotations

import json

import pytest
from kit.command import stillroom
from kit.images import digit_folders

NETS = ["teacher=resnet8", "student=resnet8", "student.width=0.5"]
SHORT = ["train.steps=6", "teacher.train.steps=12", "baseline=false", "export=[]"]


@pytest.fixture
def two(tmp_path):
    """A folder with photos of two classes."""
    digit_folders(tmp_path / "photos", each=24, side=8, classes=2)
    return tmp_path


def test_of_two_classes_auto_takes_plain_probabilities(two):
    stillroom("run", "data=photos/", *NETS, *SHORT, "name=two", cwd=two)
    info = json.loads((two / "runs" / "two" / "run.json").read_text())
    assert info["lessons"]["auto"] == "two-classes" and list(info["lessons"]["pairs"]) == ["hinton"]
    assert not [text for text in info.get("warnings", []) if "SR-M337" in text]


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize("name", ["hinton", "dkd", "hard"])
def test_standardised_logits_of_two_classes_are_refused(two, verb, name):
    method = f'methods=[{{name = "{name}", standardised = true}}]'
    more = SHORT if verb == "run" else []
    told = stillroom(verb, "data=photos/", *NETS, *more, method, "name=dead", cwd=two, code=4).stderr
    assert "SR-M339" in told and "methods = 'auto'" in told


@pytest.mark.parametrize(("weight", "code"), [("1e-9", "SR-M337 hinton"), ("1e6", "SR-M338 hinton"), ("1.0", None)])
def test_a_loss_that_hardly_counts_or_drowns_the_labels_is_said(tmp_path, weight, code):
    words = ["digits", f'methods=[{{name = "hinton", weight = {weight}}}]', *NETS]
    checked = stillroom("check", *words, cwd=tmp_path).stdout
    stillroom("run", *words, *SHORT, cwd=tmp_path)
    told = json.loads((tmp_path / "runs" / "digits" / "run.json").read_text()).get("warnings", [])
    for text in (checked, *told) if code else ():
        assert code in text or "SR-M33" not in text
    assert bool(code) == ("SR-M33" in checked) == any("SR-M33" in text for text in told)


def test_half_of_dist_is_constant_for_two_classes(two):
    stillroom("run", "data=photos/", *NETS, *SHORT, "methods=dist", "name=half", cwd=two)
    told = json.loads((two / "runs" / "half" / "run.json").read_text())["warnings"]
    assert any("SR-M337 dist/" in text for text in told)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_method_for_other_predictions_is_refused_before_anything_is_trained(tmp_path, verb):
    told = stillroom(verb, "digits", "methods=box_logits", cwd=tmp_path, code=2).stderr
    assert "box_logits" in told and 'methods = "auto"' in told and not (tmp_path / "runs").exists()
