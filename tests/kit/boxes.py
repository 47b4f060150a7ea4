"""Whether two answers hold the same boxes, where scores nearly tie too."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

SCORE = 3e-5
"""Greatest difference of two float programs' scores. Their logits z agree to 1e-5 + 1e-4 |z|, as those of classifiers,
and a sigmoid makes of that at most p (1 - p) (1e-5 + 1e-4 |z|) < 2.5e-5."""


def assert_same_boxes(said: Tensor, expected: Tensor, *, pixels: float, score: float = SCORE) -> None:
    """Answers [B, M, 6] of two programs hold the same rows: equal scores rank by rank, and a partner for each row.

    Rows come by falling score. Which comes first of two whose scores differ by rounding alone depends on the processor,
    so partners may differ in rank.

    Args:
        said: one answer, see `tasks.detection.best_boxes`.
        expected: the other.
        pixels: greatest distance of two partners' edges.
        score: greatest difference of their scores, and of the scores at one rank.
    """
    assert said.shape == expected.shape
    torch.testing.assert_close(said[..., 4], expected[..., 4], atol=score, rtol=0)
    limits = torch.tensor([pixels, pixels, pixels, pixels, score, 0.0])
    for number, (ours, theirs) in enumerate(zip(said, expected, strict=True)):
        near = ((ours[:, None] - theirs).abs() <= limits).all(-1)
        rows, partners = linear_sum_assignment(near, maximize=True)
        alone = [row for row, partner in zip(rows, partners, strict=True) if not near[row, partner]]
        assert not alone, f"image {number}: no partner for {ours[alone].tolist()}"
