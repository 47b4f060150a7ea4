"""The claims of report and card are no stronger than the measurements, and the code of the card runs."""

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
from stillroom.report import gain, model_card, run_data, summary
from stillroom.tasks._unlabelled import without_labels
from stillroom.tasks.classification import Classification

pytest_plugins = ["kit.fixtures"]


def _figure(value: float, n: int = 1000) -> dict[str, Any]:
    return {"value": value, "ci95": list(wilson(round(value * n), n)), "n": n, "how": "counted"}


@pytest.mark.parametrize(
    ("student", "baseline", "kind", "gap"),
    [
        (0.95, 0.80, "better", "15.0 points"),
        (0.91, 0.90, "open", "1.0 point above"),
        (0.90, 0.91, "open", "1.0 point below"),
        (0.80, 0.95, "worse", "15.0 points"),
        (0.90, 0.90, "open", "exactly as accurate"),
    ],
)
def test_verdict_claims_no_more_than_the_intervals_carry(
    run_copy: Path, student: float, baseline: float, kind: str, gap: str
) -> None:
    change(run_copy / "metrics.json", lambda m: m["student"].update(accuracy=_figure(student)))
    change(run_copy / "metrics.json", lambda m: m["baseline"].update(accuracy=_figure(baseline)))
    found = gain.verdict(run_data.read(run_copy))
    assert found[0] == kind and gap in found[1]
    assert ("overlap" in found[1]) == (student != baseline)
    shown = f"{100 * student:.1f} %" in found[1] and f"{100 * baseline:.1f} %" in found[1]
    assert shown, "both values stand in the sentence"
    doubts = [line for line in summary.limitations(run_data.read(run_copy)) if "baseline" in line]
    assert len(doubts) == (kind != "better")


@pytest.mark.parametrize(
    ("student", "relation"),
    [
        (0.8999, "99.9 % of the teacher's"),
        (0.9, "as accurate as its teacher"),
        (0.95, "above its teacher"),
    ],
)
def test_headline_never_rounds_a_loss_away(run_copy: Path, student: float, relation: str) -> None:
    change(run_copy / "metrics.json", lambda m: m["teacher"].update(accuracy=_figure(0.9, 10_000)))
    change(run_copy / "metrics.json", lambda m: m["student"].update(accuracy=_figure(student, 10_000)))
    assert relation in summary.headline(run_data.read(run_copy))


def test_an_unverified_file_is_called_so_everywhere(run_copy: Path) -> None:
    change(run_copy / "metrics.json", lambda m: m["exports"][1].update(verified=False))
    change(run_copy / "metrics.json", lambda m: m["exports"][0]["latency_ms"].update(stable=False))
    text, card = Page(report.write(run_copy).read_text()).text, report.card(run_copy).read_text()
    for shown in (text, card):
        assert "but UNVERIFIED." in shown and "int8 ONNX file is UNVERIFIED" in shown and "unstable" in shown
    assert card.count("UNVERIFIED") == text.count("UNVERIFIED") + 1, "the card marks the snippet of the file, too"


def test_the_card_of_the_folder_runs_as_written(made_run: Path) -> None:
    """The code for the exported files is run; its answer is the one that scikit-learn's own network gives."""
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(made_run).read_text(), re.S | re.M)
    code = [block for block in blocks if "onnxruntime" in block]
    assert len(code) == 2
    pixels = load_digits().images[:1].astype(np.float32) / 16
    want = load_digits().target[0]
    for block in code:
        code_with_image = block.replace(
            "np.zeros((1, 1, 8, 8), dtype=np.float32)", f"np.array({pixels[None].tolist()}, np.float32)"
        )
        assert code_with_image != block
        done = subprocess.run(
            [sys.executable, "-c", code_with_image], cwd=made_run, capture_output=True, text=True, timeout=60
        )
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


def test_methods_are_shown_as_they_were_recorded(run_copy: Path) -> None:
    assert summary.methods(run_data.read(run_copy)) == []
    file = run_copy / "run.json"
    pairs = {"dist": [], "fitnet": ["layer2 [32, 4, 4] ~ layer3 [64, 4, 4]"]}
    record = {"pairs": pairs, "auto": "strong-teacher", "why": "the student is small"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lessons": record}))
    assert summary.methods(run_data.read(run_copy)) == [
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
    """The task description of a run without labels, on the metrics of one that has some."""
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
    found = run_data.read(run_copy)
    value = 100 * found.headline(found.model("student"))
    assert "agrees with its teacher" in summary.headline(found) and f"{value:.1f} %" in summary.headline(found)
    assert f"{value:.1f} %" in gain.verdict(found)[1]
    same = "teacher_agreement"
    change(run_copy / "metrics.json", lambda m: m["baseline"].update({same: m["student"][same]}))
    assert "exactly as good" in gain.verdict(run_data.read(run_copy))[1]
    for text in (Page(report.write(run_copy).read_text()).text, report.card(run_copy).read_text()):
        assert "accura" not in text.lower().replace("top-1 accuracy on the test split", "")  # how it was measured
        assert "1,797" in text and "Agreement with the teacher" in text
