"""Boxes and masks go where their pixels go, whatever the key; and nothing else moves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.scenes import scenes

from stillroom.config.schema import Augment
from stillroom.data.augment import augment, make_key
from stillroom.data.geometry import geometry, transform_boxes
from stillroom.data.targets.boxes import BoxTargets
from stillroom.data.targets.masks import MaskTargets

SIDE = 64
NOTHING = Augment(shift=0)
SHIFTS = Augment(flip=True, shift=0.3)
ALL = Augment(flip=True, shift=0.2, zoom=0.3, rotate=20, brightness=0.2, contrast=0.3, saturation=0.3, erase=0.5)

policies = st.builds(
    Augment,
    flip=st.booleans(),
    shift=st.sampled_from([0.0, 0.1, 0.4]),
    zoom=st.sampled_from([0.0, 0.3]),
    rotate=st.sampled_from([0.0, 15.0, 90.0]),
)
seeds = st.integers(0, 10**6)


class Bare:
    """A source of three classes: what the targets ask for before an item is asked for."""

    classes = ("a", "b", "c")
    channels = 1
    labels = np.zeros(0, dtype=np.int64)
    splits = None


BOXES, MASKS = BoxTargets(Bare()), MaskTargets(Bare())


def keys(number: int, seed: int) -> np.ndarray:
    return make_key(seed, 3, np.arange(number))


def how(several: np.ndarray, policy: Augment):
    return geometry(several, policy, height=SIDE, width=SIDE)


def rectangles(number: int, seed: int) -> np.ndarray:
    """[number, 4] whole pixels, 6 to 30 wide and high, inside."""
    draw = np.random.default_rng(seed)
    size = draw.integers(6, 31, (number, 2))
    start = np.floor(draw.random((number, 2)) * (SIDE - size + 1)).astype(int)
    return np.concatenate([start, start + size], axis=1)


def painted(boxes: np.ndarray) -> torch.Tensor:
    images = np.zeros((len(boxes), 1, SIDE, SIDE), dtype=np.uint8)
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        image[:, top:bottom, left:right] = 255
    return torch.from_numpy(images)


def noted(boxes: np.ndarray) -> dict[str, torch.Tensor]:
    count = len(boxes)
    return {
        "boxes": torch.from_numpy(boxes / SIDE).float()[:, None],
        "labels": torch.ones(count, 1, dtype=torch.int64),
        "crowd": torch.zeros(count, 1, dtype=torch.bool),
        "size": torch.full((count, 2), SIDE),
        "known": torch.ones(count, dtype=torch.bool),
    }


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@given(policy=policies, seed=seeds)
@settings(deadline=None, max_examples=40)
def test_a_box_is_where_its_pixels_are(policy, seed):
    """A white rectangle, moved as an image, has the moved box around it, as far as it is still in the image."""
    boxes, several = rectangles(12, seed), keys(12, seed)
    seen = augment(painted(boxes), several, policy, padding="grey").numpy()[:, 0] > 0.75
    target = BOXES.transform(noted(boxes), how(several, policy))
    tolerance = 1.5 if policy.zoom or policy.rotate else 0
    for white, box, label in zip(seen, target["boxes"][:, 0].numpy() * SIDE, target["labels"][:, 0], strict=True):
        if label < 0:
            assert box.tolist() == [0, 0, 0, 0]
            continue
        rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
        if policy.rotate and not (box[:2].min() > 0.5 and box[2:].max() < SIDE - 0.5):
            continue  # the corner that made the box may have left the image
        assert np.abs(box - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= tolerance + 1e-4


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_under_flip_and_shift_a_box_ends_when_a_quarter_is_left(seed):
    boxes, several = rectangles(16, seed), keys(16, seed)
    policy = Augment(flip=True, shift=0.6)
    whole = painted(boxes).flatten(1).bool().sum(1).numpy()
    left = (augment(painted(boxes), several, policy, padding="grey") == 1).flatten(1).sum(1).numpy()
    stays = BOXES.transform(noted(boxes), how(several, policy))["labels"][:, 0].numpy() >= 0
    assert np.array_equal(stays, left / whole >= 0.25)


def test_some_boxes_end_and_others_stay():
    boxes, several = rectangles(200, 1), keys(200, 1)
    stays = BOXES.transform(noted(boxes), how(several, Augment(flip=True, shift=0.6)))["labels"][:, 0] >= 0
    assert 0.2 < stays.float().mean() < 0.95


@given(seed=seeds, shift=st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=20)
def test_a_mask_is_its_image_under_flip_and_shift(seed, shift):
    made = scenes(8, SIDE)
    policy, several = Augment(flip=True, shift=shift), keys(8, seed)
    masks = torch.from_numpy(np.stack([scene.mask for scene in made]))
    expected = (augment(masks[:, None], several, policy) * 255).round().long()[:, 0]
    assert torch.equal(MASKS.transform(masks.long(), how(several, policy)), expected)


@given(seed=seeds)
@settings(deadline=None, max_examples=15)
def test_a_mask_is_its_image_but_at_borders_under_zoom_and_rotation(seed):
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.integers(0, 2, (6, 4, 4)))
    masks = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    several = keys(6, seed)
    policy = Augment(flip=True, shift=0.1, zoom=0.3, rotate=40)
    image = augment((masks[:, None] * 255).to(torch.uint8), several, policy)[:, 0]
    moved = MASKS.transform(masks, how(several, policy))
    clear = (image < 0.02) | (image > 0.98)
    assert clear.float().mean() > 0.5
    assert torch.equal(moved[clear], (image > 0.5).long()[clear])


def test_void_stays_void():
    masks = torch.full((4, SIDE, SIDE), -1)
    assert (MASKS.transform(masks, how(keys(4, 0), ALL)) == -1).all()


@given(seed=seeds)
@settings(deadline=None, max_examples=15)
def test_a_policy_of_zeros_changes_nothing(seed):
    boxes, several = rectangles(8, seed), keys(8, seed)
    target, masks = noted(boxes), torch.from_numpy(np.stack([scene.mask for scene in scenes(8, SIDE)])).long()
    still = how(several, NOTHING)
    assert same(BOXES.transform(target, still), noted(boxes)) and torch.equal(MASKS.transform(masks, still), masks)
    moved, visible = transform_boxes(target["boxes"], still)
    assert torch.allclose(moved, target["boxes"], atol=1e-6) and (visible == 1).all()


@given(seed=seeds)
@settings(deadline=None, max_examples=15)
def test_flip_twice_is_the_identity(seed):
    boxes, policy, several = rectangles(16, seed), Augment(flip=True, shift=0), keys(16, seed)
    once = BOXES.transform(noted(boxes), how(several, policy))
    twice = BOXES.transform(once, how(several, policy))
    assert torch.allclose(twice["boxes"], noted(boxes)["boxes"], atol=1e-6)
    flipped = how(several, policy).flip
    mirrored = np.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], axis=1)
    expected = np.where(flipped[:, None], mirrored, boxes) / SIDE
    assert np.abs(once["boxes"][:, 0].numpy() - expected).max() < 1e-6
    masks = torch.from_numpy(np.stack([scene.mask for scene in scenes(16, SIDE)])).long()
    assert torch.equal(MASKS.transform(MASKS.transform(masks, how(several, policy)), how(several, policy)), masks)


@given(policy=policies, seed=seeds)
@settings(deadline=None, max_examples=20)
def test_a_row_alone_is_the_row_in_any_batch(policy, seed):
    boxes, several = rectangles(9, seed), keys(9, seed)
    together = BOXES.transform(noted(boxes), how(several, policy))
    masks = painted(boxes)[:, 0].long() // 255
    all_masks = MASKS.transform(masks, how(several, policy))
    for row in (0, 5, 8):
        one = slice(row, row + 1)
        alone = BOXES.transform(noted(boxes[one]), how(several[one], policy))
        assert same(alone, {name: value[one] for name, value in together.items()})
        assert torch.equal(MASKS.transform(masks[one], how(several[one], policy)), all_masks[one])


def test_what_was_given_is_left_alone():
    boxes, several = rectangles(9, 0), keys(9, 0)
    target, masks = noted(boxes), painted(boxes)[:, 0].long()
    before = masks.clone()
    BOXES.transform(target, how(several, ALL))
    MASKS.transform(masks, how(several, ALL))
    assert same(target, noted(boxes)) and torch.equal(masks, before)


def test_erasing_and_colours_move_nothing():
    several, boxes = keys(16, 0), rectangles(16, 0)
    coloured = Augment(shift=0, brightness=0.3, contrast=0.3, saturation=0.3, erase=1.0)
    assert same(BOXES.transform(noted(boxes), how(several, coloured)), noted(boxes))


def test_no_box_stays_no_box_and_crowd_goes_with_its_box():
    several, boxes = keys(40, 2), rectangles(40, 2)
    target = noted(boxes)
    target["crowd"][:] = True
    target["labels"][::2], target["boxes"][::2], target["crowd"][::2] = -1, 0, False
    moved = BOXES.transform(target, how(several, Augment(flip=True, shift=0.6)))
    assert (moved["labels"][::2] == -1).all() and (moved["boxes"][::2] == 0).all()
    assert torch.equal(moved["crowd"], moved["labels"] >= 0) and not moved["crowd"].all(), "some are out of sight"
    assert moved["crowd"].any()


@pytest.mark.parametrize("policy", [SHIFTS, Augment(shift=0, zoom=0.4), Augment(shift=0.2, rotate=30)], ids=repr)
def test_outside_is_grey_where_boxes_are_and_the_image_elsewhere(policy):
    """White images: whatever isn't white has come from outside; mirrored, nothing has."""
    white = torch.full((16, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    several = keys(16, 5)
    assert (augment(white, several, policy) > 0.999).all()
    grey = augment(white, several, policy, padding="grey")
    away = (grey - 128 / 255).abs() < 1e-3
    assert 0.02 < away.float().mean() < 0.6
    assert ((grey > 0.999) | away).float().mean() > 0.9, "between the two lies one line of pixels"
    inside = augment(white, several, policy, padding="grey") > 0.999
    photo = torch.randint(0, 256, white.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mirrored, cut = augment(photo, several, policy), augment(photo, several, policy, padding="grey")
    # a pixel that is white to 0.001 may hold 0.002 of what lies outside
    assert torch.allclose(mirrored[inside], cut[inside], rtol=0, atol=2.1e-3), "inside, the two are the same image"
