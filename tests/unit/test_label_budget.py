"""`data.labels` and `data.teacher_images`: few labels and a teacher's own images, for every kind of source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.scenes import coco_scenes, mask_scenes

from stillroom.config import recipe
from stillroom.data.dataset import load_dataset
from stillroom.data.label_budget import stratified_count
from stillroom.data.loader import Loader
from stillroom.data.sources.coco import Coco
from stillroom.data.sources.digits import Digits
from stillroom.data.sources.masks import Masks
from stillroom.data.subset import labelled_subset
from stillroom.errors import StillroomError


@pytest.fixture(scope="module")
def few():
    return load_dataset(Digits(), labels=100, teacher_images=500)


def test_a_hundred_labels_are_ten_of_each_class(few):
    seen = labelled_subset(few.splits["train"])
    assert len(seen) == 100 and np.bincount(seen.labels).tolist() == [10] * 10
    assert few.targets.counts(few.splits["train"].listed).sum() == 100
    assert (few.splits["train"].labels >= 0).sum() == 100
    images, target, items = few.splits["train"].take(np.arange(len(few.splits["train"])))
    assert (target >= 0).sum() == 100 and len(images) == len(items)


def test_the_teacher_s_images_are_no_one_else_s(few):
    everything = [split.listed for split in few.splits.values()]
    assert len(few.splits["teacher"]) == 500
    assert sum(map(len, everything)) == len(np.unique(np.concatenate(everything))) == 1797
    assert (few.splits["teacher"].labels >= 0).all()


def test_val_and_test_are_as_without_a_limit(few):
    whole = load_dataset(Digits())
    for name in ("val", "test"):
        assert np.array_equal(few.splits[name].listed, whole.splits[name].listed)
        assert not few.targets.unlabelled(few.splits[name].listed).any()
    assert few.fingerprint != whole.fingerprint
    assert few.fingerprint == load_dataset(Digits(), labels=100, teacher_images=500).fingerprint
    assert few.fingerprint != load_dataset(Digits(), labels=101, teacher_images=500).fingerprint


def test_a_share_is_of_the_labelled_images():
    data = load_dataset(Digits(), labels=0.25)
    assert (data.splits["train"].labels >= 0).sum() == round(0.25 * len(data.splits["train"]))
    assert "teacher" not in data.splits


def test_batches_have_the_labels_that_are_left(few):
    batch = Loader(few.splits["train"], batch=len(few.splits["train"]), seed=0).at(0)
    assert (batch.target >= 0).sum() == 100


@pytest.mark.parametrize(("labels", "teacher"), [(9, None), (0.001, None), (5000, None), (None, 9), (None, 1165)])
def test_less_than_an_image_of_each_class_is_refused(labels, teacher):
    with pytest.raises(StillroomError, match="every class") as caught:
        load_dataset(Digits(), labels=labels, teacher_images=teacher)
    assert caught.value.code == "SR-D144"


def test_hidden_boxes_are_unknown(tmp_path):
    data = load_dataset(Coco(path=str(coco_scenes(tmp_path, images=40))), labels=10)
    _, target, items = data.splits["train"].take(np.arange(len(data.splits["train"])))
    hidden = data.targets.unlabelled(items)
    assert (~hidden).sum() == 10 and torch.equal(target["known"], torch.from_numpy(~hidden))
    assert (target["labels"][torch.from_numpy(hidden)] == -1).all()


def test_hidden_masks_are_void(tmp_path):
    data = load_dataset(Masks(path=str(mask_scenes(tmp_path, images=40))), labels=10)
    _, target, items = data.splits["train"].take(np.arange(len(data.splits["train"])))
    hidden = torch.from_numpy(data.targets.unlabelled(items))
    assert (~hidden).sum() == 10 and (target[hidden] == -1).all() and (target[~hidden] >= 0).any()


@given(st.lists(st.integers(0, 4), min_size=10, max_size=60), st.integers(5, 60), st.integers(0, 3))
def test_a_stratified_choice_has_every_class_and_the_number_asked(labels, count, seed):
    strata = np.array(labels)
    items = np.arange(len(strata))
    count = min(count, len(items))
    chosen = stratified_count(strata, items, count, seed=seed, stream=0)
    assert len(chosen) == len(np.unique(chosen)) == count
    assert set(strata[chosen]) == set(labels)
    assert np.array_equal(chosen, stratified_count(strata, items, count, seed=seed, stream=0))


def test_a_recipe_says_it():
    words = {"data": "digits", "data.labels": 100, "data.teacher_images": 0.4, "teacher": "resnet20"}
    found = recipe.read(None, words | {"student": "resnet8"})
    assert (found.data.labels, found.data.teacher_images) == (100, 0.4)
