"""What the report and the card claim: no more than the figures carry; and that the card's code runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kit.page import Page, change
from sklearn.datasets import load_digits

from stillroom import report
from stillroom.metrics.measurement import wilson
from stillroom.report import folder as folders
from stillroom.report import model_card, words
from stillroom.tasks._unlabelled import without_labels
from stillroom.tasks.classification import Classification

pytest_plugins = ["kit.fixtures"]


def _figure(value: float, n: int = 1000) -> dict[str, Any]:
    return {"value": value, "ci95": list(wilson(round(value * n), n)), "n": n, "how": "counted"}


@pytest.mark.parametrize(
    ("student", "baseline", "kind", "words_in_it"),
    [
        (0.95, 0.80, "better", "Teaching added 15.0 points"),
        (0.91, 0.90, "open", "1.0 point above"),
        (0.90, 0.91, "open", "below the same student untaught"),
        (0.80, 0.95, "worse", "Teaching cost 15.0 points"),
        (0.90, 0.90, "open", "exactly as accurate"),
    ],
)
def test_verdict_claims_no_more_than_the_intervals_carry(
    run_copy: Path, student: float, baseline: float, kind: str, words_in_it: str
) -> None:
    change(run_copy / "metrics.json", lambda m: m["student"].update(accuracy=_figure(student)))
    change(run_copy / "metrics.json", lambda m: m["baseline"].update(accuracy=_figure(baseline)))
    found = words.verdict(folders.read(run_copy))
    assert found[0] == kind and words_in_it in found[1]
    assert ("overlap" in found[1]) == (student != baseline)
    doubt = "does not show that the teacher made this student better"
    assert (doubt in " ".join(words.limits(folders.read(run_copy)))) == (kind != "better")


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (0.8999, "keeps 99.9 % of the teacher's"),
        (0.9, "is as accurate as its teacher"),
        (0.95, "scores above its teacher"),
    ],
)
def test_headline_never_rounds_a_loss_away(run_copy: Path, student: float, said: str) -> None:
    change(run_copy / "metrics.json", lambda m: m["teacher"].update(accuracy=_figure(0.9, 10_000)))
    change(run_copy / "metrics.json", lambda m: m["student"].update(accuracy=_figure(student, 10_000)))
    assert said in words.headline(folders.read(run_copy))


def test_an_unverified_file_is_called_so_everywhere(run_copy: Path) -> None:
    change(run_copy / "metrics.json", lambda m: m["exports"][1].update(verified=False))
    change(run_copy / "metrics.json", lambda m: m["exports"][0]["latency_ms"].update(stable=False))
    text, card = Page(report.write(run_copy).read_text()).text, report.card(run_copy).read_text()
    for said in (text, card):
        assert "but UNVERIFIED." in said and "int8 ONNX file is UNVERIFIED" in said and "unstable" in said
    assert "which is UNVERIFIED:" in card


def test_the_card_of_the_folder_runs_as_written(made_run: Path) -> None:
    """The code for the exported files is run; its answer is the one that scikit-learn's own network gives."""
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(made_run).read_text(), re.S | re.M)
    code = [block for block in blocks if "onnxruntime" in block]
    assert len(code) == 2
    pixels = load_digits().images[:1].astype(np.float32) / 16
    want = load_digits().target[0]
    for block in code:
        told = block.replace(
            "np.zeros((1, 1, 8, 8), dtype=np.float32)", f"np.array({pixels[None].tolist()}, np.float32)"
        )
        assert told != block
        done = subprocess.run([sys.executable, "-c", told], cwd=made_run, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == str(want), done.stderr


def test_front_matter_is_yaml_with_the_measured_accuracy(run_copy: Path) -> None:
    change(run_copy / "run.json", lambda r: r.update(license="cc-by-nc-4.0"))
    change(run_copy / "run.json", lambda r: r["networks"]["student"].update(network="timm/test_resnet", arguments={}))
    card = report.card(run_copy).read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-nc-4.0" and head["library_name"] == "timm" and head["metrics"] == ["accuracy"]
    assert {"knowledge-distillation", "onnx", "int8"} <= set(head["tags"])
    accuracy = json.loads((run_copy / "metrics.json").read_text())["student"]["accuracy"]["value"]
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy, abs=1e-6)
    assert "timm.create_model('test_resnet', num_classes=10, in_chans=1)" in card


def test_markdown_shows_text_as_it_is() -> None:
    assert model_card.escaped("a|b *c* [d](e)\n# f <g> &amp;") == r"a\|b \*c\* \[d\](e) # f &lt;g&gt; &amp;amp;"
    assert str(model_card.fenced("x\n````\ny", "toml")).startswith("`````toml\n")


def test_lessons_are_told_as_they_were_written(run_copy: Path) -> None:
    assert words.lessons(folders.read(run_copy)) == []
    file = run_copy / "run.json"
    pairs = {"dist": [], "fitnet": ["layer2 [32, 4, 4] ~ layer3 [64, 4, 4]"]}
    said = {"pairs": pairs, "auto": "strong-teacher", "why": "the student is small"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lessons": said}))
    assert words.lessons(folders.read(run_copy)) == [
        "Chosen for the situation “strong-teacher”: the student is small.",
        "dist: predictions",
        "fitnet: layer2 [32, 4, 4] ~ layer3 [64, 4, 4]",
    ]


def test_a_distilled_vit_is_loaded_by_what_made_it(run_copy: Path) -> None:
    student = {"network": "timm/test_vit", "arguments": {"distilled": True}}
    change(run_copy / "run.json", lambda r: r["networks"]["student"].update(student))
    card = model_card.render(run_copy)
    assert "restore('timm/test_vit'" in card and "distilled=True" in card and "timm.create_model" not in card


def test_agreement_with_the_teacher_is_never_called_accuracy(run_copy: Path) -> None:
    """The words of a run without labels, on the figures of one that has some."""
    about = without_labels(Classification()).info
    task = {"name": "classification", "answers": "classes"} | asdict(about)
    change(run_copy / "run.json", lambda r: r.update(task=task))
    change(run_copy / "run.json", lambda r: r["data"].update(unlabelled=1797))

    def agree(metrics: dict) -> None:
        for row in (metrics["teacher"], metrics["baseline"], metrics["student"], *metrics["exports"]):
            row["teacher_agreement"] = row.pop("accuracy")
            row.pop("recall", None)
        del metrics["teacher"]["teacher_agreement"]

    change(run_copy / "metrics.json", agree)
    found = folders.read(run_copy)
    value = 100 * found.leads(found.speaker("student"))
    assert words.headline(found).startswith(f"The student agrees with its teacher on {value:.1f} % of the test images")
    assert "the same student untaught" in words.verdict(found)[1]
    same = "teacher_agreement"
    change(run_copy / "metrics.json", lambda m: m["baseline"].update({same: m["student"][same]}))
    assert "exactly as good" in words.verdict(folders.read(run_copy))[1]
    for said in (Page(report.write(run_copy).read_text()).text, report.card(run_copy).read_text()):
        assert "accura" not in said.lower().replace("top-1 accuracy on the test split", "")  # how it was measured
        assert "1,797" in said and "Agreement with the teacher" in said
