"""Report, card and table for outputs other than classes: names of the task, and correct drawings."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kit.dense_runs import CLASSES, FURTHER, WORDS
from kit.page import Page, change
from PIL import Image

from stillroom import report
from stillroom.cli import tables
from stillroom.report import embedded_images, gallery, run_data, samples, summary, table, task_description

pytest_plugins = ["kit.fixtures"]


def answers(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["task"]["answers"])


def kept(run: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads((run / "samples" / "probe.json").read_text())["images"]
    return images


@pytest.mark.parametrize(
    ("title", "inside"),
    [
        ("Accuracy", "accuracy"),
        ("mAP", "mAP"),
        ("IoU by class", "IoU by class"),
        ("k-NN accuracy", "k-NN accuracy"),
        ("Pixel accuracy", "pixel accuracy"),
        ("", ""),
    ],
)
def test_titles_inside_of_a_sentence(title: str, inside: str) -> None:
    assert task_description.in_sentence(title) == inside


@pytest.mark.parametrize(
    ("name", "title"),
    [("map", "mAP"), ("map50", "mAP50"), ("map_small", "mAP small"), ("boundary_f", "Boundary F"), ("probe", "Probe")],
)
def test_figures_are_named_as_the_task_names_them(name: str, title: str) -> None:
    assert task_description.metric_title(name, task_description.TaskDescription(headline="map", title="mAP")) == title


def test_a_run_without_a_task_is_a_classification(run_copy: Path) -> None:
    new = report.write(run_copy).read_text(), report.card(run_copy).read_text()
    change(run_copy / "run.json", lambda r: r.update(task={"headline": "accuracy", "answers": "classes"}))
    assert run_data.read(run_copy).task.title == "Accuracy"
    for odd in (None, [], "accuracy", {}, {"headline": ""}, {"headline": None, "title": "x"}):
        change(run_copy / "run.json", lambda r, odd=odd: r.update(task=odd))
        assert run_data.read(run_copy).task == task_description.TaskDescription()
        assert (report.write(run_copy).read_text(), report.card(run_copy).read_text()) == new


def test_samples_of_an_older_run_read_the_same(run_copy: Path) -> None:
    def age(found: dict[str, Any]) -> None:
        for image in found["images"]:
            image["logits"] = {name: sketch["logits"] for name, sketch in image.pop("answers").items()}
            image["target"] = image.pop("truth")["class"]
            del image["scores"], image["apart"], image["key"]

    new = gallery.build(run_data.read(run_copy))
    change(run_copy / "samples" / "probe.json", age)
    assert gallery.build(run_data.read(run_copy)) == new and any(group.images for group in new.groups)


def test_the_headline_figure_leads_everywhere(dense_run: Path) -> None:
    page, card = report.write(dense_run).read_text(), report.card(dense_run).read_text()
    shown = Page(page).text
    task, metrics = WORDS[answers(dense_run)], json.loads((dense_run / "metrics.json").read_text())
    student, teacher = (metrics[name][task["headline"]]["value"] for name in ("student", "teacher"))
    for text in (shown, card):
        assert f"{100 * student / teacher:.1f} % of the teacher's {task['title']} with 4.4 % of its MACs" in text
        assert f"{task['title']} was measured on 24 test images" in text
        for model in (metrics["teacher"], metrics["baseline"], metrics["student"], *metrics["exports"]):
            low, high = (100 * end for end in model[task["headline"]]["ci95"])
            assert f"{100 * model[task['headline']]['value']:.1f} %" in text
            assert f"{low:.1f}–{high:.1f} %, n 24" in text
    assert 'id="overview"' in page and f"{task['title']} on validation images" in shown
    assert ('id="classes"' in page) == bool(task["by_class"]) and task["by_class_title"] in shown
    for text in (shown, card):
        assert not re.search(
            r"(?<!k-NN )(?<!Pixel )(?<!pixel )\baccuracy|\bcorrect, [a-z]+ wrong|recognised|image classifier", text
        )


def test_further_metrics_have_a_table_of_their_own(dense_run: Path) -> None:
    shown, card = Page(report.write(dense_run).read_text()).text, report.card(dense_run).read_text()
    metrics = json.loads((dense_run / "metrics.json").read_text())
    ((*rows,),) = table.further(run_data.read(dense_run))
    assert [row.label for row in rows] == ["teacher", "baseline", "student", "float ONNX", "int8 ONNX"]
    assert len(rows[0].cells) == len(FURTHER[answers(dense_run)])
    for name in FURTHER[answers(dense_run)]:
        title = task_description.metric_title(name, run_data.read(dense_run).task)
        assert title in shown and f" {title} |" in card
        for model in (metrics["teacher"], metrics["baseline"], metrics["student"], *metrics["exports"]):
            low, high = (100 * end for end in model[name]["ci95"])
            for text in (shown, card):
                assert f"{100 * model[name]['value']:.1f} %" in text and f"{low:.1f}–{high:.1f} %, n 24" in text


def test_costs_and_verification_are_no_further_metrics(made_run: Path, run_copy: Path) -> None:
    assert table.further(run_data.read(made_run)) == []
    change(
        run_copy / "metrics.json", lambda m: m["student"].update({f"share_{i}": {"value": i / 10} for i in range(9)})
    )
    change(
        run_copy / "metrics.json", lambda m: m["student"].update(energy={"value": 3.5}, odd={"value": None, "how": "x"})
    )
    parts = table.further(run_data.read(run_copy))
    assert [[cell.name for cell in rows[0].cells] for rows in parts] == [
        [f"Share {number}" for number in range(7)],
        ["Share 7", "Share 8", "Energy", "Odd"],
    ]
    assert [cell.text for cell in parts[1][0].cells] == ["70.0 %", "80.0 %", "3.5", "–"]
    assert [row.label for rows in parts for row in rows] == ["student", "student"]


def test_agreement_is_defined(dense_run: Path, made_run: Path) -> None:
    assert table.agreement(run_data.read(dense_run)) == "Agreement: matched answers, weighted by score."
    assert table.agreement(run_data.read(made_run)) != table.agreement(run_data.read(dense_run))
    cell = table.rows(run_data.read(dense_run))[1].cells[1]
    assert (cell.text, cell.note) == ("70.0 %", "with teacher") and "difference 0.25" in cell.tooltip


def test_equal_figures_are_as_good_not_as_accurate(dense_copy: Path) -> None:
    headline = WORDS[answers(dense_copy)]["headline"]

    def level(metrics: dict[str, Any]) -> None:
        metrics["baseline"][headline] = metrics["teacher"][headline] = metrics["student"][headline]

    change(dense_copy / "metrics.json", level)
    found = run_data.read(dense_copy)
    title = WORDS[answers(dense_copy)]["title"]
    assert f"as good as its teacher ({title} 75.0 %)" in summary.headline(found)
    assert "exactly as good (75.0 %)" in summary.verdict(found)[1]


def test_the_gallery_compares_models_by_score(dense_run: Path) -> None:
    found = gallery.build(run_data.read(dense_run))
    images = kept(dense_run)
    scores = {
        name: np.array([image["scores"][name] for image in images]) for name in ("teacher", "student", "baseline")
    }
    apart = np.array([image["apart"]["onnx-8"] for image in images])
    want = [
        (scores["teacher"] - scores["student"] > 0.005).sum(),
        (scores["student"] - scores["teacher"] > 0.005).sum(),
        (scores["student"] - scores["baseline"] > 0.005).sum(),
    ]
    want = want if answers(dense_run) != "vector" else []  # one embedding alone has no score
    want += [(apart > 0.005).sum(), gallery.MAX_DRAWN]
    assert [group.total for group in found.groups] == want
    assert want[-2] > 0 and "int8 ONNX" in found.groups[-2].title
    first = found.groups[0].images
    gaps = scores["teacher"] - scores["student"] if answers(dense_run) != "vector" else apart
    best = [images[row]["name"] for row in np.argsort(-gaps, kind="stable")[: gallery.MAX_DRAWN]]
    assert [image.name for image in first] == best


def test_boxes_are_drawn_where_they_are(dense_runs: Path) -> None:
    dense_run = dense_runs / "boxes"
    image = next(image for image in kept(dense_run) if len(image["answers"]["student"]["boxes"]) > 1)
    groups = gallery.build(run_data.read(dense_run)).groups
    picture = next(p for group in groups for p in group.images if p.name == image["name"])
    panels = {panel.role: panel for panel in picture.panels}
    for role, sketch in (("truth", image["truth"]), ("student", image["answers"]["student"])):
        pattern = r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" stroke="(#\w+)"'
        drawn = re.findall(pattern, panels[role].drawing)
        rows = sorted((row for row in sketch["boxes"] if row[5] >= 0.3), key=lambda row: row[5])
        assert len(drawn) == len(rows) > 0
        found = sorted([*(float(number) for number in one[:4]), one[4]] for one in drawn)
        want = sorted(
            [
                96 * max(left, 0),
                96 * max(top, 0),
                96 * (min(right, 1) - max(left, 0)),
                96 * (min(bottom, 1) - max(top, 0)),
                embedded_images.css_colour(int(label)),
            ]
            for left, top, right, bottom, label, _ in rows
        )
        for one, other in zip(found, want, strict=True):
            assert one[:4] == pytest.approx(other[:4], abs=0.06) and one[4] == other[4]


def test_unsure_and_impossible_boxes_are_left_out() -> None:
    rows: list[Any] = [
        [0.1, 0.1, 0.5, 0.5, 0, 0.31],
        [0.1, 0.1, 0.5, 0.5, 2, 0.9],
        [0.1, 0.1, 0.5, 0.5, 0, 0.29],
        [0.5, 0.1, 0.1, 0.5, 0, 0.9],
        [0.1, 0.1, 0.5, 0.5, -1, 0.9],
        [0.1, 0.1, None, 0.5, 0, 0.9],
        [0.1, 0.1, 0.5, 0.5, 0.9],
        "box",
        [-1, -1, 2, 2, 1, 0.5],
    ]
    found = samples.boxes(rows, min_score=0.3)
    assert [(box.label, box.score) for box in found] == [(2, 0.9), (1, 0.5), (0, 0.31)]
    assert found[1] == samples.Box(0, 0, 1, 1, 1, 0.5)
    assert samples.boxes({"a": 1}, min_score=0.3) == [] and len(samples.boxes(rows[:1] * 500, min_score=0)) == 100


def test_masks_have_the_colours_of_their_classes(dense_runs: Path) -> None:
    dense_run = dense_runs / "pixels"
    found = gallery.build(run_data.read(dense_run))
    assert found.legend == tuple((name, embedded_images.css_colour(index)) for index, name in enumerate(CLASSES))
    picture = found.groups[0].images[0]
    image = next(image for image in kept(dense_run) if image["name"] == picture.name)
    for panel in picture.panels:
        file = image["truth"]["mask"] if panel.role == "truth" else image["answers"][panel.role]["mask"]
        labels = np.asarray(Image.open(dense_run / "samples" / file))
        source = re.search(r'href="data:image/png;base64,([^"]+)"', panel.drawing)
        assert source is not None
        painted = np.asarray(Image.open(io.BytesIO(base64.b64decode(source[1]))).convert("RGBA"))
        assert painted.shape[:2] == labels.shape
        for label in np.unique(labels):
            seen = painted[labels == label]
            assert (seen[:, 3] == (0 if label == 255 else 150)).all()
            assert label == 255 or (seen[:, :3] == embedded_images.rgb(int(label))).all()
    assert 255 in np.unique(np.asarray(Image.open(dense_run / "samples" / image["truth"]["mask"])))


def test_neighbours_are_the_nearest_by_cosine(dense_runs: Path) -> None:
    dense_run = dense_runs / "vector"
    images = kept(dense_run)
    group = gallery.build(run_data.read(dense_run)).groups[-1]
    for picture in group.images:
        row = next(row for row, image in enumerate(images) if image["name"] == picture.name)
        for panel in picture.panels:
            key = {"float ONNX": "onnx-32", "int8 ONNX": "onnx-8"}.get(panel.label, panel.role)
            vectors = np.array([image["answers"][key]["vector"] for image in images])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            cosines = vectors @ vectors[row]
            cosines[row] = -2
            best = np.argsort(-cosines)[:4]
            want = [
                CLASSES[images[other]["truth"]["class"]]
                + f", cosine {cosines[other]:.2f}"
                + (", same class" if images[other]["truth"] == images[row]["truth"] else "")
                for other in best
            ]
            assert re.findall(r"<title>([^<]+)</title>", panel.drawing) == want


def test_colours_of_classes_differ() -> None:
    seen = np.array([embedded_images.rgb(label) for label in range(12)], dtype=float)
    apart = np.abs(seen[:, None] - seen[None]).sum(2) + 1000 * np.eye(12)
    assert apart.min() > 40 and all(
        embedded_images.css_colour(label) == embedded_images.css_colour(label) for label in range(256)
    )


def test_a_page_of_drawings_is_well_formed_and_loads_nothing(dense_run: Path) -> None:
    text = report.write(dense_run).read_text()
    found = Page(text)
    for tag, attributes in found.elements:
        assert tag not in {"link", "iframe", "object", "embed", "audio", "video", "source", "form", "base"}
        for name in ("src", "href", "xlink:href"):
            if attributes.get(name) is not None:
                assert re.match(r"data:image/(png|jpeg);base64,|#[a-z0-9-]+$", attributes[name] or ""), (
                    tag,
                    attributes,
                )
        assert not any(name.startswith("on") for name in attributes)
    places = {attributes["id"] for tag, attributes in found.elements if tag == "image" and "id" in attributes}
    used = {str(attributes["href"])[1:] for tag, attributes in found.elements if tag == "use"}
    assert used and used == places
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "") and not re.search(r"@import|url\(", text)
    drawn = [attributes for tag, attributes in found.elements if tag == "svg" and attributes.get("role") == "img"]
    assert all(attributes["aria-label"] for attributes in drawn)
    assert report.write(dense_run).read_text() == text


@pytest.mark.parametrize("value", ["NaN", "null", '"../../../secret.png"', "[[1]]", "{}", "true", "1e999", "[]"])
def test_spoilt_sketches_leave_a_page(dense_copy: Path, value: str) -> None:
    def spoil(found: dict[str, Any]) -> None:
        for place, image in enumerate(found["images"]):
            for sketch in (image["truth"], *image["answers"].values()):
                for name in sketch:
                    sketch[name] = "SPOILT"
            if place % 2:
                image["answers"]["student"] = image["scores"]["teacher"] = image["apart"] = "SPOILT"
            if place % 3 == 0:
                image["truth"] = image["scores"] = "SPOILT"

    (dense_copy.parent / "secret.png").write_bytes((dense_copy / "samples" / "0000.png").read_bytes())
    change(dense_copy / "samples" / "probe.json", spoil)
    file = dense_copy / "samples" / "probe.json"
    file.write_text(file.read_text().replace('"SPOILT"', value))
    text = report.write(dense_copy).read_text()
    shown = Page(text).text
    assert 'id="gallery"' in text and not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", shown)
    assert 'class="mask"' not in text


def test_hostile_names_stay_text(dense_copy: Path) -> None:
    hostile = '"><img src=x onerror=alert(1)>'

    def spoil(run: dict[str, Any]) -> None:
        run["data"]["classes"] = [hostile] * 3
        run["task"] |= {name: hostile for name in ("title", "noun", "tag", "use", "caution", "by_class_title")}

    change(dense_copy / "run.json", spoil)
    change(dense_copy / "samples" / "probe.json", lambda p: [image.update(name=hostile) for image in p["images"]])
    found = Page(report.write(dense_copy).read_text())
    assert hostile in found.text and not any("onerror" in attributes for _, attributes in found.elements)
    card = report.card(dense_copy).read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == hostile
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card.split("\n---\n", 1)[1], flags=re.S | re.M)
    assert "<" not in outside


def test_the_card_describes_the_task(dense_run: Path) -> None:
    card = report.card(dense_run).read_text()
    task, head = WORDS[answers(dense_run)], yaml.safe_load(card.split("---\n")[1])
    assert head["pipeline_tag"] == task["tag"] and task["tag"] in head["tags"] and head["library_name"] == "stillroom"
    assert head["metrics"] == [task["headline"]]
    result = head["model-index"][0]["results"][0]
    assert result["task"]["type"] == task["tag"]
    assert result["metrics"] == [{"type": task["headline"], "value": 0.75, "name": task["title"]}]
    article = "An" if task["noun"].startswith("object") else "A"
    assert f"{article} {task['noun']}: a timm/student distilled from" in card
    assert task["use"].replace("{classes}", "3") + ", for images like those of scenes" in card
    restored = {"boxes": "classes=3, channels=1, size=64, output_kind='boxes'"}
    restored |= {"pixels": "classes=3, channels=1, size=64, output_kind='pixels'"}
    restored |= {"vector": "classes=None, channels=1, size=64, output_kind='vector'"}
    assert f"restore('timm/student', \"student.safetensors\", {restored[answers(dense_run)]})" in card


def test_the_code_for_exported_files_runs(dense_run: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(dense_run).read_text(), re.S | re.M)
    code = [block for block in blocks if "onnxruntime" in block]
    want = {
        "boxes": "(2, 6)\nmiddle 0.8999999761581421 [0.0, 0.0, 640.0, 480.0]",
        "pixels": "{'low'}",
        "vector": "1.0",
    }
    assert len(code) == 2
    for block in code:
        done = subprocess.run([sys.executable, "-c", block], cwd=dense_run, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == want[answers(dense_run)], done.stderr


@pytest.mark.parametrize("kind", ["classes", "pixels", "boxes", "vector", "something else"])
def test_code_for_the_student_compiles(dense_copy: Path, kind: str) -> None:
    change(dense_copy / "run.json", lambda r: r["task"].update(answers=kind))
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(dense_copy).read_text(), re.S | re.M)
    assert len(blocks) == 3
    for block in blocks:
        compile(block, "card", "exec")


def test_the_table_on_the_console_has_the_headline_figure(dense_run: Path, made_run: Path) -> None:
    metrics = json.loads((dense_run / "metrics.json").read_text())
    task = json.loads((dense_run / "run.json").read_text())["task"]
    found = tables.results(metrics, task)
    assert [str(column.header) for column in found.columns[:3]] == ["", task["title"], "95 % CI"]
    assert list(found.columns[1].cells) == ["87.5 %", "60.0 %", "75.0 %", "75.0 %", "67.5 %"]
    assert list(found.columns[2].cells)[2] == "70.0-79.0" and list(found.columns[7].cells)[3:] == ["yes", "yes"]
    older = tables.results(json.loads((made_run / "metrics.json").read_text()))
    assert older.columns[1].header == "accuracy" and all("%" in cell for cell in older.columns[1].cells)
    metrics["student"][task["headline"]] = {"value": None, "how": "nothing to see"}
    assert list(tables.results(metrics, task).columns[1].cells)[2] == ""
