"""Look where the teacher looks. Zagoruyko, Komodakis 2017, https://arxiv.org/abs/1612.03928, eq. 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """Q = a / ||a||_2 with a = mean over channels of |f|^power: how much a network makes of every place.

    Unchanged when an image's map is multiplied by a positive number, and when channels change places.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        power: at least 1; larger looks at the strongest channels only.

    Returns:
        [B, h * w], each image of length 1, no element negative. A map of zeros stays zeros.
    """
    f = to_map(feature)
    if f.numel():  # the length is divided out anyway, and powers of large numbers overflow
        f = f / f.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(f.dtype).tiny)
    return F.normalize(f.abs().pow(power).mean(1).flatten(1), dim=1)


def at_loss(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """mean((Q(student) - Q(teacher))^2) over images and places, Q from `attention`, at the smaller one's size.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, D, H, W] or [B, M, D]; any width.
        power: at least 1.

    Returns:
        Scalar in 0 .. 2 / (h * w); 0 where both look at the same places, and for an empty batch.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    return s.sum() if s.numel() == 0 else (attention(s, power) - attention(t, power)).square().mean()


class AT(Method):
    """Attention transfer: the energy of every place, summed over channels, should be the teacher's.

    Differs: maps of different sizes are compared at the smaller size; the paper has equal ones. Tokens are maps here.
    The paper's formula has 1/2 and a sum; the mean, with weight 1000, is the authors' code.

    Use: two convolutional networks of one family and different width: it learns nothing besides the student.

    Avoid: across families, whose attention differs: ResNet-50 to MobileNetV2 on CIFAR-100 came out at 58.6 %, far below
    the 64.6 % of no teacher (Tian et al. 2020).

    Args:
        power: at least 1; of the channels before they are summed.
        student_taps: places in the student; () has the end of every stage found.
        teacher_taps: places in the teacher, as many.

    Raises:
        ValueError: the power is below 1.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no places.
    """

    weight = 1000.0
    default_taps = "stages"

    def __init__(self, *, power: float = 2.0, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        at_least(1, power=power)
        self.power = power
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """Nothing to learn; refuse vectors."""
        checked_map_pairs(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"at": ...}`: `at_loss` summed over the stages."""
        found = [at_loss(s, t, self.power) for s, t in map_pairs(self, student, teacher)]
        return {"at": torch.stack(found).sum()}
