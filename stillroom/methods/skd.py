"""Places as alike as the teacher has them. Liu et al. 2019, https://arxiv.org/abs/1903.04197, section 3.1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._features import to_map
from stillroom.methods._maps import comparable, pairs, same_grid
from stillroom.methods._relations import inner, unit
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def affinity(feature: Tensor, nodes: int = 32) -> Tensor:
    """a_ij = cos(f_i, f_j) between the places of an image, after pooling them to at most `nodes` a side.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        nodes: at least 2.

    Returns:
        [B, n, n] in -1..1, n = min(h, nodes) * min(w, nodes); the diagonal is 1, or 0 for a place of zeros.
    """
    f = to_map(feature)
    f = F.adaptive_avg_pool2d(f, (min(f.shape[2], nodes), min(f.shape[3], nodes)))
    places = unit(f.flatten(2).transpose(1, 2))
    return inner(places, places)


def skd_loss(student: Tensor, teacher: Tensor, nodes: int = 32) -> Tensor:
    """Mean over images and pairs of places of (a_ij(student) - a_ij(teacher))^2, a from `affinity`, at one size.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, D, H, W] or [B, M, D]; any width.
        nodes: at least 2.

    Returns:
        Scalar in 0..4; 0 when places are as alike as the teacher has them, and for no images.
    """
    s, t = same_grid(to_map(student), to_map(teacher))
    return s.sum() if s.numel() == 0 else (affinity(s, nodes) - affinity(t, nodes)).square().mean()


class SKD(Method):
    """Pair-wise structure distillation: which places of an image are alike.

    Differs: the graph joins all nodes, and its granularity is said as their number: 32 a side are the paper's 2x2
    patches of a map of 64 x 64. Patches are averaged, as in the paper; the authors' code takes the maximum, and no
    gradient through the lengths. Of the paper's three losses it is one: the pixels' is `hinton` on a segmenter,
    the adversary is not here.

    Use: segmentation and detection beside a method of predictions, across families and widths: it learns nothing
    besides the student.

    Avoid: alone: it says which places are alike and never what they are.

    Args:
        nodes: at least 2; a side. Memory grows with the fourth power.
        student_taps: places in the student; () has its last map found.
        teacher_taps: places in the teacher, as many.

    Raises:
        ValueError: fewer than two nodes.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no places.
    """

    weight = 10.0
    reads = "last"

    def __init__(self, *, nodes: int = 32, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        at_least(2, nodes=nodes)
        self.nodes = nodes
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """Nothing to learn; refuse vectors."""
        comparable(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"pairwise": ...}`: `skd_loss` summed over the pairs of taps."""
        found = [skd_loss(s, t, self.nodes) for s, t in pairs(self, student, teacher)]
        return {"pairwise": torch.stack(found).sum()}
