"""mIoU and pixel accuracy against scikit-learn, contours against scipy's distance transform, dice against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import accuracy_score, jaccard_score

from stillroom.metrics.boundary import Boundary, contour, contour_counts
from stillroom.metrics.overlap import Overlap, miou_per_image
from stillroom.metrics.pixel_agreement import PixelAgreement
from stillroom.tasks.segmentation import dice_loss, pixel_loss
from stillroom.types import Batch, Output


def case(seed, classes, images=5, side=9):
    """Logits and masks with void; of the classes some are never true, some never said."""
    draw = np.random.default_rng(seed)
    said = draw.integers(0, max(1, classes - draw.integers(0, 2)), (images, side, side + 2))
    true = draw.integers(-1, max(1, classes - draw.integers(0, 3)), said.shape)
    true = np.where(draw.random(said.shape) < 0.4, said, true)
    true[0] = -1
    logits = np.eye(classes)[said].transpose(0, 3, 1, 2) * 4 + draw.random((images, classes, side, side + 2))
    return torch.from_numpy(logits), torch.from_numpy(true)


def seen(metric, logits, true, reference=None):
    batch = Batch(images=torch.zeros(len(true), 1, *true.shape[1:]), target=true, keys=torch.arange(len(true)))
    metric.update(Output(pred=logits), batch, None if reference is None else Output(pred=reference))
    return metric.compute()


def named(classes):
    return tuple(f"class {k}" for k in range(classes))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("classes", [2, 4, 7])
def test_overlap_is_scikit_learns(seed, classes):
    logits, true = case(seed, classes)
    figures = seen(Overlap(classes=named(classes)), logits, true)
    known = true >= 0
    y, p = true[known].numpy(), logits.argmax(1)[known].numpy()
    there = sorted(set(y) | set(p))
    assert figures["miou"].value == pytest.approx(jaccard_score(y, p, labels=there, average="macro"), abs=1e-12)
    each = jaccard_score(y, p, labels=there, average=None)
    wanted = {f"class {k}": value for k, value in zip(there, each, strict=True)}
    assert figures["iou"].value == pytest.approx(wanted, abs=1e-12)
    assert figures["pixel_accuracy"].value == pytest.approx(accuracy_score(y, p), abs=1e-12)
    assert figures["miou"].n == len(true) - 1 and figures["miou"].extra["pixels"] == len(y)


@pytest.mark.parametrize("seed", range(4))
def test_one_image_alone_is_scikit_learns(seed):
    logits, true = case(seed, 4)
    found = miou_per_image(logits.argmax(1), true, 4)
    assert found[0] == 1  # all void
    for one, mask, value in zip(logits.argmax(1)[1:], true[1:], found[1:], strict=True):
        y, p = mask[mask >= 0].numpy(), one[mask >= 0].numpy()
        wanted = jaccard_score(y, p, labels=sorted(set(y) | set(p)), average="macro")
        assert value.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_accuracy_and_overlap_with_the_reference(seed):
    logits, true = case(seed, 4)
    reference, _ = case(seed + 50, 4)
    found = seen(PixelAgreement(classes=named(4)), logits, true, reference)["agreement"]
    y, p = reference.argmax(1).flatten().numpy(), logits.argmax(1).flatten().numpy()
    assert found.value == pytest.approx(accuracy_score(y, p), abs=1e-12)
    labels = sorted(set(y) | set(p))
    assert found.extra["miou"] == pytest.approx(jaccard_score(y, p, labels=labels, average="macro"), abs=1e-12)
    apart = (logits.softmax(1) - reference.softmax(1)).abs()
    assert found.extra["max_difference"] == pytest.approx(apart.max().item(), rel=1e-9)
    assert found.extra["mean_difference"] == pytest.approx(apart.mean().item(), rel=1e-9)


def outline(region, known):
    """Pixels of the region with a known neighbour outside of it, one pixel at a time."""
    found = np.zeros_like(region)
    h, w = region.shape
    for y in range(h):
        for x in range(w):
            beside = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            inside = [(a, b) for a, b in beside if 0 <= a < h and 0 <= b < w and known[a, b]]
            found[y, x] = region[y, x] and known[y, x] and any(not region[a, b] for a, b in inside)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.0075, 0.11, 0.2])
def test_boundary_f_is_that_of_distances(seed, tolerance):
    logits, true = case(seed, 3, images=3, side=13)
    said, scores = logits.argmax(1).numpy(), {}
    radius = max(1.0, tolerance * np.hypot(*true.shape[1:]))
    for n, mask in enumerate(true.numpy()):
        known = mask >= 0
        for k in range(3):
            ours, theirs = outline((said[n] == k) & known, known), outline(mask == k, known)
            assert np.array_equal(contour(torch.from_numpy((mask == k)[None]), torch.from_numpy(known))[0], theirs)
            if not ours.any() and not theirs.any():
                continue
            shares = [0.0, 0.0]
            if ours.any() and theirs.any():
                near = [
                    distance_transform_edt(~other)[one] <= radius for one, other in ((ours, theirs), (theirs, ours))
                ]
                shares = [hit.mean() for hit in near]
            scores.setdefault(k, []).append(2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0)
    figures = seen(Boundary(classes=named(3), tolerance=tolerance), logits, true)
    assert figures["boundary_f"].value == pytest.approx(np.mean([np.mean(s) for s in scores.values()]), abs=1e-12)
    assert contour_counts(torch.from_numpy(said[0]), true[0], 3, tolerance).sum() == 0


def test_losses_are_those_of_loops():
    logits, true = case(3, 3, images=2, side=4)
    p = logits.softmax(1)
    places = [(b, i, j) for b in range(2) for i in range(4) for j in range(6) if true[b, i, j] >= 0]
    wanted = -np.mean([p[b, true[b, i, j], i, j].log().item() for b, i, j in places])
    assert pixel_loss(logits, true).item() == pytest.approx(wanted, rel=1e-5)
    parts = []
    for k in range(3):
        truth = [float(true[place] == k) for place in places]
        said = [p[b, k, i, j].item() for b, i, j in places]
        if sum(truth):
            parts.append(2 * sum(a * b for a, b in zip(said, truth, strict=True)) / (sum(said) + sum(truth)))
    assert dice_loss(logits, true).item() == pytest.approx(1 - np.mean(parts), rel=1e-5)
