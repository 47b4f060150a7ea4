"""What holds for every image, key and policy; and parity with a slow loop, one image and one pixel at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image

from stillroom.config.schema import Augment
from stillroom.data.augment import augment, make_key, to_float
from stillroom.data.hash_rng import permutation, uniform

PHOTO = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)
DIGITS = torch.from_numpy((load_digits().images[:32] * 15).astype(np.uint8))[:, None]
NONE = Augment(shift=0)
ALL = Augment(flip=True, shift=0.2, zoom=0.2, rotate=20, brightness=0.2, contrast=0.3, saturation=0.4, erase=0.5)

seeds = st.integers(0, 2**63 - 1)
policies = st.builds(
    Augment,
    flip=st.booleans(),
    shift=st.sampled_from([0, 0.1, 0.4]),
    zoom=st.sampled_from([0, 0.2]),
    rotate=st.sampled_from([0, 15.0]),
    brightness=st.sampled_from([0, 0.3]),
    contrast=st.sampled_from([0, 0.3]),
    saturation=st.sampled_from([0, 0.5]),
    erase=st.sampled_from([0, 0.5, 1]),
)


def crops(number: int, side: int, *, seed: int = 0) -> torch.Tensor:
    """Crops of a real photo, uint8 [number, 3, side, side + 3]."""
    places = np.random.default_rng(seed).integers(0, 200, (number, 2))
    return torch.stack([PHOTO[:, y : y + side, x : x + side + 3] for y, x in places]).contiguous()


def keys(number: int, *, seed: int = 0) -> np.ndarray:
    return make_key(seed, 0, np.arange(number))


@settings(deadline=None, max_examples=40)
@given(policy=policies, seed=seeds, colour=st.booleans(), number=st.integers(1, 32))
def test_a_row_alone_is_the_row_in_any_batch_bit_for_bit(policy, seed, colour, number):
    images = crops(number, 19) if colour else DIGITS[:number]
    several = keys(number, seed=seed)
    whole = augment(images, several, policy)
    assert whole.dtype == torch.float32 and whole.shape == images.shape
    assert whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(whole, augment(images, torch.from_numpy(several), policy)), "pure"
    order = np.random.default_rng(seed % 2**32).permutation(number)
    assert torch.equal(whole[order], augment(images[order], several[order], policy)), "in another order"
    for row in {0, number // 2, number - 1}:
        assert torch.equal(whole[row], augment(images[row : row + 1], several[row : row + 1], policy)[0]), "alone"


def test_large_batches_on_several_threads_are_the_same_rows():
    images = crops(20, 220)
    whole = augment(images, keys(20), ALL)
    for row in range(20):
        assert torch.equal(whole[row], augment(images[row : row + 1], keys(20)[row : row + 1], ALL)[0])


def test_nothing_is_exactly_division_by_255():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    expected = torch.tensor([value / 255 for value in range(256)], dtype=torch.float32).reshape(1, 1, 16, 16)
    assert torch.equal(augment(levels, keys(1), NONE), expected)
    assert torch.equal(to_float(levels), expected)


def test_the_image_itself_is_left_alone():
    images = crops(4, 20)
    before = images.clone()
    augment(images, keys(4), ALL)
    assert torch.equal(images, before)


@given(seed=seeds)
@settings(deadline=None, max_examples=25)
def test_flip_twice_is_the_identity_and_half_are_flipped(seed):
    several = keys(32, seed=seed)
    policy = Augment(flip=True, shift=0)
    once = augment(DIGITS, several, policy)
    again = augment((once * 255).round().to(torch.uint8), several, policy)
    assert torch.equal(again, to_float(DIGITS))
    flipped = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(once, to_float(DIGITS), strict=True)])
    still = torch.tensor([torch.equal(a, b) for a, b in zip(once, to_float(DIGITS), strict=True)])
    assert (flipped | still).all()


def test_each_change_has_its_own_numbers():
    several = keys(2000)
    drawn = np.stack([uniform(several, stream=stream) for stream in range(18)])
    assert np.abs(np.corrcoef(drawn) - np.eye(18)).max() < 0.1
    flip = augment(DIGITS, keys(32), Augment(flip=True, shift=0))
    both = augment(DIGITS, keys(32), Augment(flip=True, shift=0, erase=1))
    unerased = both != 0.5
    assert torch.equal(flip[unerased], both[unerased]), "switching one on leaves the other as it was"


@pytest.mark.parametrize("stream", range(3))
def test_uniform_is_uniform(stream):
    drawn = uniform(np.arange(20_000), stream=stream)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 60, "chi-square, 19 degrees of freedom: p = 4e-6"
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.03


@given(seed=st.integers(-(2**40), 2**63), epoch=st.integers(0, 2**23 - 2), item=st.integers(0, 2**40 - 2))
def test_two_looks_never_share_a_key(seed, epoch, item):
    grid = make_key(seed, np.array([epoch, epoch, epoch + 1, epoch + 1]), np.array([item, item + 1, item, item + 1]))
    assert len(set(grid.tolist())) == 4 and (grid >= 0).all()
    assert make_key(seed, epoch, item)[0] == grid[0]


def test_keys_are_frozen():
    """Other numbers would be other runs: one of an older version would silently resume with other batches."""
    assert make_key(0, 0, np.arange(3)).tolist() == [0, 2558316640067307269, 6616413020432831626]
    assert make_key(7, 3, np.arange(2)).tolist() == [6792231356675618129, 9149693799882494910]
    assert uniform(make_key(7, 3, np.arange(2)), stream=2).tolist() == [0.015937124322504714, 0.9290206268420269]
    assert permutation(8, seed=1, epoch=2).tolist() == [0, 7, 2, 1, 5, 3, 6, 4]
    assert len(np.unique(make_key(3, np.repeat(np.arange(50), 1000), np.tile(np.arange(1000), 50)))) == 50_000
    with pytest.raises(ValueError, match=r"2\^40"):
        make_key(0, 0, 2**40)


@given(length=st.integers(1, 300), seed=st.integers(0, 10**6), epoch=st.integers(0, 1000))
def test_an_epoch_s_order_is_a_permutation(length, seed, epoch):
    order = permutation(length, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(length))
    assert np.array_equal(order, permutation(length, seed=seed, epoch=epoch))
    if length > 20:
        assert not np.array_equal(order, permutation(length, seed=seed, epoch=epoch + 1))
        assert not np.array_equal(order, permutation(length, seed=seed + 1, epoch=epoch))


# parity: the same numbers, drawn the same way, put to use by a naive loop ------------------------------------------


def draw(one: int, stream: int) -> float:
    return float(uniform(np.array([one]), stream=stream)[0])


def span(one: int, stream: int, amount: float) -> float:
    return (2 * draw(one, stream) - 1) * amount


def whole(one: int, stream: int, share: float, side: int) -> int:
    most = round(share * side)
    return math.floor(draw(one, stream) * (2 * most + 1)) - most


def naive(image: np.ndarray, one: int, policy: Augment) -> np.ndarray:
    """The docstring of `augment` read aloud: [C, H, W] in, float64 out."""
    channels, height, width = image.shape
    value = image / 255
    if policy.flip and draw(one, 0) < 0.5:
        value = value[:, :, ::-1]
    dx, dy = whole(one, 1, policy.shift, width), whole(one, 2, policy.shift, height)
    value = np.stack([ndimage.shift(plane, (dy, dx), order=0, mode="reflect") for plane in value])
    if policy.zoom or policy.rotate:
        zoom, angle = 1 + span(one, 3, policy.zoom), math.radians(span(one, 4, policy.rotate))
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        offset = centre - matrix @ centre
        value = np.stack([ndimage.affine_transform(plane, matrix, offset, order=1, mode="reflect") for plane in value])
    value = value + span(one, 5, policy.brightness)
    middle = image.mean() / 255
    value = (value - middle) * (1 + span(one, 6, policy.contrast)) + middle
    if channels == 3:
        grey = 0.299 * value[0] + 0.587 * value[1] + 0.114 * value[2]
        value = grey + (value - grey) * (1 + span(one, 7, policy.saturation))
    value = value.clip(0, 1)
    if draw(one, 8) < policy.erase:
        side = 1 + math.floor(draw(one, 9) * (min(height, width) // 2))
        left = math.floor(draw(one, 10) * (width - side + 1))
        top = math.floor(draw(one, 11) * (height - side + 1))
        for y in range(top, top + side):
            for x in range(left, left + side):
                value[:, y, x] = 0.5
    return value


@pytest.mark.parametrize(
    "policy",
    [
        Augment(flip=True, shift=0.3),
        Augment(shift=0, zoom=0.3),
        Augment(shift=0, rotate=30),
        Augment(shift=0.1, zoom=0.2, rotate=10),
        Augment(shift=0, brightness=0.3),
        Augment(shift=0, contrast=0.5),
        Augment(shift=0, saturation=0.9),
        Augment(shift=0, erase=0.7),
        ALL,
    ],
    ids=repr,
)
@pytest.mark.parametrize("colour", [True, False])
def test_parity_with_a_naive_loop(policy, colour):
    images, several = (crops(24, 29), keys(24)) if colour else (DIGITS, keys(32))
    got = augment(images, several, policy).numpy()
    expected = np.stack([naive(image, int(one), policy) for image, one in zip(images.numpy(), several, strict=True)])
    assert np.abs(got - expected).max() < 2e-5
    changed = np.abs(got - images.numpy() / 255).max() > 0.02
    assert changed == (colour or policy != Augment(shift=0, saturation=0.9)), "grey has no saturation to change"


def test_keys_and_images_must_match():
    with pytest.raises(ValueError, match="32 images need as many keys"):
        augment(DIGITS, keys(31), ALL)
