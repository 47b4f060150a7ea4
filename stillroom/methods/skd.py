"""Match similarities of positions in a map. Liu et al. 2019, https://arxiv.org/abs/1903.04197, section 3.1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods._relations import inner, unit
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def affinity(feature: Tensor, nodes: int = 32) -> Tensor:
    """a_ij = cos(f_i, f_j) between the positions of an image, after average pooling to at most `nodes` per side.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        nodes: at least 2.

    Returns:
        [B, n, n] in -1..1, n = min(h, nodes) * min(w, nodes); the diagonal is 1, or 0 for a position with a zero
        vector.
    """
    f = to_map(feature)
    f = F.adaptive_avg_pool2d(f, (min(f.shape[2], nodes), min(f.shape[3], nodes)))
    places = unit(f.flatten(2).transpose(1, 2))
    return inner(places, places)


def skd_loss(student: Tensor, teacher: Tensor, nodes: int = 32) -> Tensor:
    """Mean over images and pairs of positions of (a_ij(student) - a_ij(teacher))^2, a from `affinity`, at one size.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, D, H, W] or [B, M, D]; any width.
        nodes: at least 2.

    Returns:
        Scalar in 0..4; 0 for equal similarities, and without images.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    return s.sum() if s.numel() == 0 else (affinity(s, nodes) - affinity(t, nodes)).square().mean()


class SKD(Method):
    """Pair-wise structured distillation: similarities between the positions of an image.

    Differs: the graph connects all nodes, and its granularity is given by their number: 32 per side are the paper's 2x2
    patches of a 64 x 64 map. Patches are averaged, as in the paper; the authors' code uses max pooling, and no gradient
    through the norms. It is one of the paper's three losses: the pixel-wise one is `hinton` on a segmenter, the
    adversarial one is not implemented.

    Use: segmentation and detection, together with a method of predictions, across families and widths. It has no
    trainable modules.

    Avoid: alone: similarities between positions do not determine their classes.

    Args:
        nodes: at least 2; per side. Memory grows with its fourth power.
        student_taps: features of the student; if empty, its last map.
        teacher_taps: features of the teacher, equally many.

    Raises:
        ValueError: `nodes` is below 2.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no positions.
    """

    weight = 10.0
    default_taps = "last"

    def __init__(self, *, nodes: int = 32, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        at_least(2, nodes=nodes)
        self.nodes = nodes
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """No trainable modules; vectors are refused."""
        checked_map_pairs(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"pairwise": ...}`: `skd_loss` summed over the pairs of taps."""
        losses = [skd_loss(s, t, self.nodes) for s, t in map_pairs(self, student, teacher)]
        return {"pairwise": torch.stack(losses).sum()}
