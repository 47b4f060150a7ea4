"""Match a kernel of each pair of images. Peng et al. 2019, https://arxiv.org/abs/1904.01802, section 3.3."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._features import to_vector
from stillroom.methods._relations import inner, unit, vector_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def cc_loss(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """mean_ij (k(s_i, s_j) - k(t_i, t_j))^2, k(x, y) = exp(-2 gamma) sum_{p <= P} (2 gamma x.y)^p / p!, |x| = |y| = 1.

    k is the Taylor series, up to the power P, of the Gaussian kernel exp(-gamma |x - y|^2) of unit vectors.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.
        gamma: above 0; the larger, the narrower the kernel, and the more only close neighbours count.
        order: P, at least 1.

    Returns:
        Scalar, at least 0; 0 for equal cosines, so under any rotation and any scaling of each vector, for one image,
        and for an empty batch.
    """
    if len(student) == 0:
        return at_least_float32(student).sum()
    return (
        (_kernel(at_least_float32(student), gamma, order) - _kernel(at_least_float32(teacher), gamma, order))
        .square()
        .mean()
    )


def _kernel(x: Tensor, gamma: float, order: int) -> Tensor:
    direction = unit(x)
    cosine = inner(direction, direction)
    series = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(series).sum(0)


class CC(Method):
    """Correlation congruence, with a linear layer that maps the student's vectors to the teacher's width.

    Differs: the paper samples batches with several images per class, adds `hinton`'s loss and has a layer on both
    sides. Here batches are sampled as usual, `hinton` is a method of its own, and the teacher's vectors are used
    directly: with trainable layers on both sides a constant is the best solution. The code that circulates as the
    authors' has another loss, of products of the differences of neighbours in the batch; its weight of 0.02 (Tian et
    al. 2020) would make this loss negligible. The weight of 100 is that of a public comparison on CIFAR with this
    kernel, gamma and order.

    Use: like `sp` and `rkd`, for students of another width; with large batches, which contain several images per class.

    Avoid: as the only method with many classes and small batches, in which hardly two images are similar.

    Args:
        gamma: above 0; of the Gaussian kernel.
        order: at least 1; the last power of the series.
        student_taps: a feature of the student; if empty, the input of its classifier.
        teacher_taps: the feature of the teacher that it is compared with.

    Raises:
        ValueError: gamma is not above 0, or the order is below 1.
    """

    weight = 100.0
    default_taps = "vector"

    def __init__(
        self,
        *,
        gamma: float = 0.4,
        order: int = 2,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        above(0, gamma=gamma)
        at_least(1, order=order)
        self.gamma, self.order = gamma, order
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.embed = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the linear layers."""
        layers = []
        for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = to_vector(student.taps[ours]), to_vector(teacher.taps[theirs])
            layers.append(nn.Linear(s.shape[1], t.shape[1]).to(s.device))
        self.embed = nn.ModuleList(layers)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kernel": ...}`: `cc_loss` summed over the taps."""
        pairs = zip(self.embed, vector_pairs(self, student, teacher), strict=True)
        return {"kernel": torch.stack([cc_loss(embed(s), t, self.gamma, self.order) for embed, (s, t) in pairs]).sum()}
