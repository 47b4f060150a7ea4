"""Fewer labels than a source has: images for the teacher alone, and labels that training may see.

Which images are chosen is a function of their labels and of a seed, stratified by class, as the splits are.
"""

from __future__ import annotations

import math

import numpy as np

from stillroom.data.errors import LabelBudgetTooSmall
from stillroom.data.hash_rng import uniform
from stillroom.data.splits import Splits
from stillroom.data.targets.few_labels import few_labels
from stillroom.data.targets.target import Targets
from stillroom.types import IntArray

TEACHER, LABELS = 1_000_003, 1_000_033  # streams of the two choices, far from those of the splits


def limit_labels(
    targets: Targets,
    strata: IntArray,
    splits: Splits,
    *,
    labels: float | None = None,
    teacher_images: float | None = None,
    seed: int = 0,
) -> tuple[Targets, Splits]:
    """Take the teacher's images from train, and hide labels of what is left of it. Val and test are left as they are.

    Args:
        targets: of the source.
        strata: [N] by which the choice is stratified, see `Source.labels`.
        splits: train, val and test.
        labels: labelled images that remain in train: a number, or a share below 1; None leaves all.
        teacher_images: labelled images that go from train to a split "teacher", likewise; None: no such split.
        seed: of the choice.

    Raises:
        LabelBudgetTooSmall: SR-D144 fewer than one image per class, or none that is left.
    """
    if teacher_images is not None:
        own = _chosen(targets, strata, splits["train"], teacher_images, "teacher_images", seed=seed, stream=TEACHER)
        splits = splits | {"train": np.setdiff1d(splits["train"], own), "teacher": own}
    if labels is None:
        return targets, splits
    seen = _chosen(targets, strata, splits["train"], labels, "labels", seed=seed, stream=LABELS)
    labelled = splits["train"][~targets.unlabelled(splits["train"])]
    return few_labels(targets, np.setdiff1d(labelled, seen)), splits


def stratified_count(strata: IntArray, items: IntArray, count: int, *, seed: int, stream: int) -> IntArray:
    """`count` of `items`, from each stratum in proportion to its size, and one at least; ascending.

    Args:
        strata: [N].
        items: to choose from.
        count: at least the number of strata, at most len(items).
        seed: of the choice.
        stream: tells choices of one seed apart.
    """
    rank = uniform(items, stream=stream + 2 * seed)
    names, sizes = np.unique(strata[items], return_counts=True)
    ideal = count * sizes / len(items)
    take = np.maximum(np.floor(ideal).astype(int), 1)
    for at in np.argsort(take - ideal, kind="stable"):  # largest remainders first
        take[at] += 1 if take.sum() < count and take[at] < sizes[at] else 0
    while take.sum() > count:  # a stratum had less than one
        take[np.argmax(take)] -= 1
    of = {name: np.flatnonzero(strata[items] == name) for name in names}
    chosen = [
        of[name][np.argsort(rank[of[name]], kind="stable")[:number]] for name, number in zip(names, take, strict=True)
    ]
    return np.sort(items[np.concatenate(chosen)])


def _chosen(
    targets: Targets, strata: IntArray, train: IntArray, amount: float, key: str, *, seed: int, stream: int
) -> IntArray:
    labelled = train[~targets.unlabelled(train)]
    count = math.floor(amount) if amount >= 1 else round(amount * len(labelled))
    classes = len(np.unique(strata[labelled]))
    least, most = max(classes, 1), len(labelled) - (classes if key == "teacher_images" else 0)
    if not least <= count <= most:
        raise LabelBudgetTooSmall(key=key, amount=f"{amount:g}", least=least, most=most, labelled=len(labelled))
    return stratified_count(strata, labelled, count, seed=seed, stream=stream)
