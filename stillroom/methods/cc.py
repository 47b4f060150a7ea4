"""Match a kernel of every two images. Peng et al. 2019, https://arxiv.org/abs/1904.01802, section 3.3."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._features import to_vector
from stillroom.methods._relations import inner, unit, vectors
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def cc_loss(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """mean_ij (k(s_i, s_j) - k(t_i, t_j))^2, k(x, y) = exp(-2 gamma) sum_{p <= P} (2 gamma x.y)^p / p!, |x| = |y| = 1.

    k is Taylor's series of the Gaussian kernel exp(-gamma |x - y|^2) of unit vectors, cut after the power P.

    Args:
        student: [B, D].
        teacher: [B, D'], of the same images.
        gamma: above 0: the narrower the kernel, the more only near neighbours count.
        order: P, at least 1.

    Returns:
        Scalar, at least 0; 0 where the cosines agree, so for any rotation and any scaling of each vector, and for
        one image.
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
    """Correlation congruence, with a linear layer that brings the student's vectors to the teacher's width.

    Differs: the paper draws batches of several images a class, adds `hinton`'s loss and puts a layer on both sides.
    Here batches are as they come, `hinton` is a method to name beside this one, and the teacher keeps its own vectors:
    layers trained on both sides agree best where both say the same of every image. What circulates as the authors'
    code is another loss, products of the differences of neighbours in the batch; the weight of 0.02 that goes with it
    (Tian et al. 2020) would leave nothing of this one. 100 is that of a public comparison on CIFAR which has this
    kernel, gamma and order.

    Use: as `sp` and `rkd`, for students of another width; large batches, in which classes meet themselves.

    Avoid: as the only method where classes are many and batches small: then hardly two images of a batch are alike.

    Args:
        gamma: above 0; of the Gaussian kernel.
        order: at least 1; the last power of the series.
        student_taps: a feature of the student; found where both are left out.
        teacher_taps: the teacher's, for comparison with it.

    Raises:
        ValueError: gamma is not above 0, or the order is below 1.
    """

    weight = 100.0
    reads = "vector"

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
        """Size the linear layers."""
        layers = []
        for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = to_vector(student.taps[ours]), to_vector(teacher.taps[theirs])
            layers.append(nn.Linear(s.shape[1], t.shape[1]).to(s.device))
        self.embed = nn.ModuleList(layers)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kernel": ...}`, see `cc_loss`; summed over the taps."""
        pairs = zip(self.embed, vectors(self, student, teacher), strict=True)
        return {"kernel": torch.stack([cc_loss(embed(s), t, self.gamma, self.order) for embed, (s, t) in pairs]).sum()}
