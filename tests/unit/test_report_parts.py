"""The parts of a report: numbers, scales, curves, gallery."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.page import change
from PIL import Image
from sklearn.datasets import load_digits

from stillroom import report
from stillroom.report import charts, format, gallery, history, run_data, samples, svg

pytest_plugins = ["kit.fixtures"]


def test_softmax_matches_numpy_and_refuses_what_is_no_logit() -> None:
    logits = [1000.0, 998.5, -1000.0]
    exact = np.exp(np.array(logits) - 1000)
    assert samples.softmax(logits) == pytest.approx(exact / exact.sum(), rel=1e-12)
    for wrong in (None, [], [1.0, math.nan], [1.0, None], ["1"], 3.0):
        assert samples.softmax(wrong) is None


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (format.percent(0.98123), "98.1 %"),
        (format.share(97, 1000), "9.7 %"),
        (format.share(3, 10_000), "0.030 %"),
        (format.share(1, 0), "–"),
        (format.count(940), "940"),
        (format.count(27_213), "27.2 k"),
        (format.count(999_999), "1.00 M"),
        (format.size(4_200_000), "4.20 MB"),
        (format.size(None), "–"),
        (format.milliseconds(0.0412345), "0.0412"),
        (format.milliseconds(1830.4), "1,830"),
        (format.rate(2410.2), "2,410 /s"),
        (format.times(3.4), "3.4×"),
        (format.times(12.3), "12×"),
        (format.duration(59.97), "1 min 0 s"),
        (format.duration(7500), "2 h 5 min"),
        (format.points(-0.0131), "1.3 points"),
        (format.plain(0.00001234), "1.23e-05"),
        (format.plain(1234.5), "1,234" if f"{1234.5:.0f}" == "1234" else "1,235"),
        (format.interval([0.957, 0.987]), "95.7–98.7 %"),
        (format.interval([None, 1]), ""),
        (format.count(10**400), "–"),
    ],
)
def test_numbers_as_people_read_them(made: str, text: str) -> None:
    assert made == text


def test_scales_ticks_and_labels() -> None:
    assert svg.ticks(0.881, 1.0, 4) == [0.9, 0.95, 1.0]
    assert svg.log_ticks(0.02, 3.0) == pytest.approx([0.03, 0.1, 0.3, 1.0, 3.0])
    x = svg.Scale(1, 100, 0, 200, log=True)
    assert (x(1), x(10), x(100)) == (0, 100, 200)
    places = svg.place_apart([50, 51, 52, 10], 12, 0, 60)
    assert places == [36, 48, 60, 10]
    assert svg.place_apart([], 12, 0, 60) == []


def test_points_of_a_chart_lie_where_their_values_are() -> None:
    curve = history.Curve("student", history.downsample({0: 0.0, 50: 1.0, 100: 2.0}))
    drawn = charts.lines([curve], title="x")
    ((places),) = re.findall(r'<polyline points="([^"]+)"', drawn)
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, place.split(","))) for place in places.split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert x0 < x1 and y0 > y1


def test_many_steps_are_thinned_and_keep_their_extremes(run_copy: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(60_000)
    values[31_007] = 55.0
    with (run_copy / "steps.jsonl").open("w") as stream:
        for step, value in enumerate(values):
            line = {"stage": "student", "step": step, "terms": {"task/ce": value}, "weights": {"task": 1}, "lr": 1e-3}
            stream.write(json.dumps(line | {"skipped": step % 20_000 == 7}) + "\n")
        stream.write('{"stage": "student", "step": 60000, "terms": {"task/ce": 9')  # a killed process
    past = history.read(run_copy)
    (curve,) = past.terms["task/ce"]
    assert (
        len(curve.buckets) == history.MAX_BUCKETS
        and past.steps == {"student": 60_000}
        and past.skipped == {"student": 3}
    )
    assert max(bucket.high for bucket in curve.buckets) == 55.0
    assert min(bucket.low for bucket in curve.buckets) == values.min()
    assert np.mean([bucket.mean for bucket in curve.buckets]) == pytest.approx(values.mean(), rel=1e-9)
    assert report.write(run_copy).stat().st_size < 400_000


def test_a_resumed_run_shows_the_steps_that_counted(tmp_path: Path) -> None:
    def line(step: int, value: float | None) -> str:
        return json.dumps({"stage": "student", "step": step, "terms": {"task/ce": value}, "lr": 1.0}) + "\n"

    first = [line(step, 100.0) for step in range(1, 8)]
    again = [line(step, None if step == 6 else float(step)) for step in range(5, 11)]
    (tmp_path / "steps.jsonl").write_text("".join(first + again))
    (curve,) = history.read(tmp_path).terms["task/ce"]
    assert [(b.step, b.mean) for b in curve.buckets] == [(s, 100.0) for s in range(1, 5)] + [
        (s, float(s)) for s in (5, 7, 8, 9, 10)
    ]


def test_many_classes_show_the_worst(run_copy: Path) -> None:
    names = [f"class {index:03d}" for index in range(120)]

    def spoil(metrics: dict[str, Any]) -> None:
        metrics["teacher"]["recall"]["value"] = {name: 0.9 for name in names}
        metrics["student"]["recall"]["value"] = {name: 0.9 - 0.005 * index for index, name in enumerate(names)}
        metrics["baseline"]["recall"]["value"] = {name: 0.5 for name in names}

    change(run_copy / "metrics.json", spoil)
    text = report.write(run_copy).read_text()
    shown = set(re.findall(r">(class \d{3})<", text))
    assert shown == set(names[-20:]) and "20 of 120 classes" in text


def test_gallery_agrees_with_a_count_from_the_logits(made_run: Path) -> None:
    images = json.loads((made_run / "samples" / "probe.json").read_text())["images"]
    target = np.array([image["truth"]["class"] for image in images])
    models = images[0]["answers"]
    labels = {key: np.array([image["answers"][key]["logits"] for image in images]).argmax(1) for key in models}
    correct = {key: found == target for key, found in labels.items()}
    expected = [
        (correct["teacher"] & ~correct["student"]).sum(),
        (correct["student"] & ~correct["teacher"]).sum(),
        (correct["student"] & ~correct["baseline"]).sum(),
        (labels["onnx-8"] != labels["student"]).sum(),
    ]
    groups = gallery.build(run_data.read(made_run)).groups
    assert [group.total for group in groups] == expected and "int8 ONNX" in groups[-1].title
    for image in groups[0].images:
        teacher, student = image.predictions
        assert teacher.top[0].correct and not student.top[0].correct
        assert student.top[0].probability >= student.top[1].probability >= student.top[2].probability


def test_thumbnails_are_the_images_themselves(made_run: Path) -> None:
    kept = {image["name"]: image for image in json.loads((made_run / "samples" / "probe.json").read_text())["images"]}
    groups = gallery.build(run_data.read(made_run)).groups
    pictures = [picture for group in groups for picture in group.images]
    assert pictures
    originals = {row.tobytes() for row in (load_digits().data / 16 * 255).astype(np.float32).astype(np.uint8)}
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1]))))
        assert pixels.tobytes() in originals
        assert picture.truth == str(kept[picture.name]["truth"]["class"])


@pytest.mark.parametrize("key", ["accuracy", "score"])
def test_validation_curve_reads_only_the_validation_split(tmp_path: Path, key: str) -> None:
    lines = [{"stage": "student", "step": step, "split": split, key: value} for step, split, value in EVALS]
    (tmp_path / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (curve,) = history.read(tmp_path).scores
    assert [(bucket.step, bucket.mean) for bucket in curve.buckets] == [(10, 0.5), (20, 0.75)]


EVALS = [(10, "val", 0.5), (10, "train", 0.9), (20, "val", 0.75), (30, "val", None)]
