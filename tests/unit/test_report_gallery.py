"""The gallery of a report: comparisons of models, and correct drawings of boxes, masks and neighbours."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.dense_runs import CLASSES
from kit.page import Page, change
from PIL import Image

from stillroom import report
from stillroom.report import embedded_images, gallery, run_data, samples

pytest_plugins = ["kit.fixtures"]


def answers(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["task"]["answers"])


def kept(run: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads((run / "samples" / "probe.json").read_text())["images"]
    return images


def test_samples_of_an_older_run_read_the_same(run_copy: Path) -> None:
    def age(found: dict[str, Any]) -> None:
        for image in found["images"]:
            image["logits"] = {name: sketch["logits"] for name, sketch in image.pop("answers").items()}
            image["target"] = image.pop("truth")["class"]
            del image["scores"], image["apart"], image["key"]

    new = gallery.build(run_data.read(run_copy))
    change(run_copy / "samples" / "probe.json", age)
    assert gallery.build(run_data.read(run_copy)) == new and any(group.images for group in new.groups)


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
