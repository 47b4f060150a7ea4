"""mixup and cutmix: parity with a slow loop over pixels, and what holds for every key and policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stillroom.config.schema import Augment
from stillroom.data.augment import augment
from stillroom.data.bad_images import BadImageLog
from stillroom.data.dataset import Split
from stillroom.data.hash_rng import make_key, uniform
from stillroom.data.loader import augmented_view
from stillroom.data.mixing import mix_images, mixing_partners
from stillroom.data.sources.digits import Digits

SOURCE = Digits()
LISTED = np.arange(5, 95, 3)
SPLIT = Split(
    name="train",
    listed=LISTED,
    source=SOURCE,
    size=8,
    max_pixels=100,
    in_memory=True,
    bad_image_log=BadImageLog(total=len(LISTED), max_bad=0, report=None),
)
BLACK, WHITE = torch.zeros(3000, 1, 9, 14), torch.ones(3000, 1, 9, 14)
KEYS = make_key(0, 3, np.arange(3000))


def mixed(images: torch.Tensor, others: torch.Tensor, keys: np.ndarray, policy: Augment):
    """Images and shares; what is given stays as it is."""
    result = images.clone()
    return result, mix_images(others.clone(), result, keys, policy)


alphas = st.sampled_from([0.05, 0.2, 1.0, 8.0])
policies = st.builds(
    Augment, flip=st.booleans(), shift=st.sampled_from([0, 0.2]), mixup=st.just(0.0) | alphas, cutmix=alphas
) | st.builds(Augment, mixup=alphas, shift=st.just(0.1))


def draw(one: int, stream: int) -> float:
    return float(uniform(np.array([one]), stream=stream)[0])


def naive(own: np.ndarray, other: np.ndarray, one: int, policy: Augment) -> tuple[np.ndarray, float]:
    """The two papers read aloud, of one image: float64 [C, H, W]. The box is `rand_bbox` of the authors' code."""
    boxed = policy.cutmix > 0 and (policy.mixup == 0 or draw(one, 14) < 0.5)
    alpha = policy.cutmix if boxed else policy.mixup
    lam = float(stats.beta.ppf(draw(one, 15), alpha, alpha))
    lam = max(lam, 1 - lam)
    if not boxed:
        return lam * own + (1 - lam) * other, lam
    channels, height, width = own.shape
    ratio = math.sqrt(1 - lam)
    tall, wide = int(height * ratio), int(width * ratio)
    y, x = math.floor(draw(one, 16) * height), math.floor(draw(one, 17) * width)
    result, replaced = own.copy(), 0
    for row in range(max(0, y - tall // 2), min(height, y + tall // 2)):
        for column in range(max(0, x - wide // 2), min(width, x + wide // 2)):
            replaced += 1
            for channel in range(channels):
                result[channel, row, column] = other[channel, row, column]
    return result, 1 - replaced / (height * width)


@settings(max_examples=30)
@given(policy=policies, seed=st.integers(0, 2**40), epoch=st.integers(0, 50))
def test_a_mixed_batch_is_what_the_papers_say(policy, seed, epoch):
    """Row by row: the partner, its own look in the same epoch, the mixture, both labels."""
    rows = np.arange(len(SPLIT))
    got = augmented_view(SPLIT, rows, np.full(len(rows), epoch), seed=seed, policy=policy)
    for row, item in enumerate(LISTED):
        one = make_key(seed, epoch, int(item))
        assert got.keys[row] == one[0]
        partner = int(LISTED[math.floor(draw(int(one[0]), 13) * len(LISTED))])
        own, other = (
            augment(torch.from_numpy(SOURCE.read(int(i)))[None, None], make_key(seed, epoch, int(i)), policy)[
                0
            ].double()
            for i in (item, partner)
        )
        expected, share = naive(own.numpy(), other.numpy(), int(one[0]), policy)
        assert np.abs(got.images[row].double().numpy() - expected).max() < 1e-6
        assert got.mixed.share[row].item() == pytest.approx(share, abs=1e-6)
        assert got.target[row] == SOURCE.labels[item] and got.mixed.target[row] == SOURCE.labels[partner]


@settings(max_examples=30)
@given(policy=policies, seed=st.integers(0, 2**40), number=st.integers(1, 30))
def test_a_row_alone_is_the_row_in_any_batch_bit_for_bit(policy, seed, number):
    order = np.random.default_rng(seed).permutation(len(SPLIT))[:number]
    epochs = order % 4
    whole = augmented_view(SPLIT, order, epochs, seed=seed, policy=policy)
    for place in {0, number // 2, number - 1}:
        alone = augmented_view(SPLIT, order[place : place + 1], epochs[place : place + 1], seed=seed, policy=policy)
        assert torch.equal(alone.images[0], whole.images[place])
        assert torch.equal(alone.mixed.share[0], whole.mixed.share[place])
        assert torch.equal(alone.mixed.target[0], whole.mixed.target[place])


@settings(max_examples=20)
@given(policy=policies)
def test_shares_are_exact_and_images_stay_in_range(policy):
    """White in black: what is white was replaced, and is counted; what is grey is the share itself."""
    images, share = mixed(BLACK, WHITE, KEYS, policy)
    assert share.dtype == images.dtype == torch.float32
    assert share.min() >= 0.5 and share.max() <= 1 and images.min() >= 0 and images.max() <= 1
    whole = images.flatten(1)
    boxed = ((whole == 0) | (whole == 1)).all(1)  # a mixup of share 1 too, where both say the same
    counted = 1 - whole.double().sum(1) / (9 * 14)
    assert torch.equal(counted[boxed].float(), share[boxed])
    assert torch.equal(whole[~boxed], (1 - share[~boxed])[:, None].expand(-1, 9 * 14))
    assert bool(boxed.any()) >= bool(policy.cutmix) and bool((~boxed).any()) >= bool(policy.mixup)
    if not policy.mixup:
        assert boxed.all()
    again = mixed(WHITE, WHITE, KEYS, policy)[0]
    assert torch.equal(again, WHITE), "two images that are equal give that image"


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_shares_of_mixup_are_a_folded_beta(alpha):
    """Parameters at which float32 rounds few of them to 1: of Beta(0.2, 0.2) it would be 4 in 100."""
    share = mixed(BLACK, WHITE, KEYS, Augment(mixup=alpha))[1].double().numpy()
    folded = stats.beta(alpha, alpha)
    assert stats.kstest(share, lambda x: folded.cdf(x) - folded.cdf(1 - x)).pvalue > 0.01


def test_boxes_of_cutmix_are_as_large_as_drawn_where_they_are_not_cut():
    """On large images, where whole pixels hardly matter: the largest shares of boxes are a folded Beta's."""
    large = torch.zeros(2000, 1, 200, 200)
    share = mixed(large, large, KEYS[:2000], Augment(cutmix=1.0))[1].double().numpy()
    lam = stats.beta.ppf(uniform(KEYS[:2000], stream=15), 1, 1)
    drawn = np.maximum(lam, 1 - lam)
    assert (share >= drawn - 1e-9).all(), "a box is cut, never enlarged"
    whole = np.abs(share - drawn) < 0.02
    assert 0.2 < whole.mean() < 0.7 and (share - drawn).max() > 0.1


def test_with_both_on_each_has_half():
    images, _ = mixed(BLACK, WHITE, KEYS, Augment(mixup=8.0, cutmix=8.0))
    grey = ((images > 0) & (images < 1)).flatten(1).any(1).float().mean().item()
    assert abs(grey - 0.5) < 0.05


def test_each_row_is_as_often_a_partner():
    rows = mixing_partners(KEYS, 10)
    counts = np.bincount(rows)
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 0.01
    assert abs(np.corrcoef(rows[1:], rows[:-1])[0, 1]) < 0.1
    assert (mixing_partners(KEYS, 1) == 0).all(), "an image that is alone is its own partner"


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_no_parameter_gives_what_is_no_number(alpha):
    for policy in (Augment(mixup=alpha), Augment(cutmix=alpha)):
        images, share = mixed(BLACK, WHITE, KEYS, policy)
        assert images.isfinite().all() and share.isfinite().all()
    share = mixed(BLACK, WHITE, KEYS, Augment(mixup=alpha))[1]
    assert share.std() < 1e-2 and share.mean().round().item() in (0, 1)
