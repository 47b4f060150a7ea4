"""Whatever an annotation file holds, it is read or refused by name; nothing else comes out of it."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.annotations import Listed, noted, picture

from stillroom.data.sources.coco import Coco
from stillroom.data.sources.voc import Voc
from stillroom.data.targets.boxes import BoxTargets
from stillroom.data.targets.usable_boxes import usable_boxes
from stillroom.errors import StillroomError

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("a.png"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
numbers = st.floats(-50, 150) | st.sampled_from([0.0, 10.0, 20.0, 40.0, math.nan, math.inf, -math.inf])


def content() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }


@given(data=st.data(), what=junk)
@settings(deadline=None, max_examples=150)
def test_a_coco_file_with_anything_anywhere(data, what):
    whole = content()
    part = data.draw(st.sampled_from(list(whole)))
    key = data.draw(st.sampled_from([None, *whole[part][0], "more"]))
    if key is None:
        whole[part] = what
    else:
        whole[part][0][key] = what
    with tempfile.TemporaryDirectory() as folder:
        picture(Path(folder) / "a.png", size=(40, 20))
        file = Path(folder) / "x.json"
        file.write_text(json.dumps(whole))
        try:
            source = Coco(path=str(file))
            target = BoxTargets(source).take(np.arange(len(source.labels)), np.empty(0))
        except StillroomError as failure:
            assert failure.code in ("SR-D102", "SR-D108", "SR-D120", "SR-S201")
            return
    assert len(source.labels) == 1 and target["boxes"].isfinite().all() and target["labels"].max() < 1


@given(
    text=st.text(max_size=40) | numbers.map(str) | st.sampled_from(["1e999", "<a/>", "&amp;", "9" * 500]),
    place=st.integers(0, 6),
)
@settings(deadline=None, max_examples=150)
def test_a_voc_file_with_anything_anywhere(text, place):
    parts = ["40", "20", "cat", "3", "4", "9", "10"]
    parts[place] = text
    width, height, name, *box = parts
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        picture(Path(folder) / "JPEGImages" / "a.png", size=(40, 20))
        (Path(folder) / "Annotations").mkdir()
        body = f"<size><width>{width}</width><height>{height}</height></size><object><name>{name}</name><bndbox>{sides}"
        whole = f"<annotation>{body}</bndbox></object></annotation>".encode("utf-8", "surrogatepass")
        (Path(folder) / "Annotations" / "a.xml").write_bytes(whole)
        try:
            source = Voc(path=folder)
            target = BoxTargets(source).take(np.arange(1), np.empty(0))
        except StillroomError as failure:
            assert failure.code == "SR-D121"
            return
    assert target["boxes"].isfinite().all() and target["labels"].max() < 1


@given(boxes=st.lists(st.tuples(numbers, numbers, numbers, numbers, st.integers(-1, 3), st.booleans()), max_size=6))
@settings(deadline=None, max_examples=200)
def test_what_is_kept_is_sound_and_every_box_is_kept_or_told(boxes):
    given_boxes = noted(*[b[:4] for b in boxes], labels=[b[4] for b in boxes], crowd=[b[5] for b in boxes])
    kept = usable_boxes(given_boxes, 2)
    left, top, right, bottom = kept.boxes.T
    assert (left < right).all() and (top < bottom).all() and (kept.boxes >= 0).all() and (kept.boxes <= 1).all()
    assert ((kept.labels >= 0) & (kept.labels < 2)).all()
    assert len(kept.labels) >= (~kept.faults.any(axis=1)).sum(), "whoever is blameless stays"
    again = usable_boxes(noted(*kept.boxes * [40, 20, 40, 20], labels=kept.labels, crowd=kept.crowd), 2)
    assert not again.faults.any() and np.allclose(again.boxes, kept.boxes, atol=1e-6), "usable boxes stay usable"


def test_counts_and_batches_agree():
    source = Listed(noted([1, 1, 9, 9], [1, 1, 9, 9], [0, 0, 4, 4], labels=[0, 0, 1]), noted(), noted([2, 2, 3, 3]))
    targets = BoxTargets(source)
    assert targets.counts(np.arange(3)).tolist() == [2, 1]
    labels = targets.take(np.arange(3), np.empty(0))["labels"]
    assert [(labels == k).sum().item() for k in range(2)] == [2, 1]
