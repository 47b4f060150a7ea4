"""Match spatial attention maps. Zagoruyko, Komodakis 2017, https://arxiv.org/abs/1612.03928, eq. 2."""

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
    """Q = a / ||a||_2 with a = mean over channels of |f|^power: how strong the activations are at each position.

    Unchanged when an image's map is multiplied by a positive number, and under any permutation of the channels.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        power: at least 1; larger values emphasise the strongest channels.

    Returns:
        [B, h * w], at least 0; the row of each image has length 1. A map of zeros gives zeros.
    """
    f = to_map(feature)
    if f.numel():  # powers of large numbers overflow, and scaling does not change Q
        f = f / f.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(f.dtype).tiny)
    return F.normalize(f.abs().pow(power).mean(1).flatten(1), dim=1)


def at_loss(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """mean((Q(student) - Q(teacher))^2) over images and positions, Q from `attention`, at the smaller of the two sizes.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, D, H, W] or [B, M, D]; any width.
        power: at least 1.

    Returns:
        Scalar in 0 .. 2 / (h * w); 0 for equal attention maps, and for an empty batch.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    return s.sum() if s.numel() == 0 else (attention(s, power) - attention(t, power)).square().mean()


class AT(Method):
    """Attention transfer: the student's channel-averaged activation energy at each position should equal the teacher's.

    Differs: maps of different sizes are compared at the smaller size; the paper has equal sizes. Tokens are treated as
    maps. The paper's formula has a factor 1/2 and a sum; the mean, with weight 1000, is that of the authors' code.

    Use: two convolutional networks of one family and different width. It has no trainable modules.

    Avoid: across families, whose attention maps differ: ResNet-50 to MobileNetV2 on CIFAR-100 reached 58.6 %, far below
    the 64.6 % without a teacher (Tian et al. 2020).

    Args:
        power: at least 1; exponent of the activations before averaging over channels.
        student_taps: features of the student; if empty, the end of each stage.
        teacher_taps: features of the teacher, equally many.

    Raises:
        ValueError: the power is below 1.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, which has no positions.
    """

    weight = 1000.0
    default_taps = "stages"

    def __init__(self, *, power: float = 2.0, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        at_least(1, power=power)
        self.power = power
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """No trainable modules; vectors are refused."""
        checked_map_pairs(self, student, teacher, vectors=False)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"at": ...}`: `at_loss` summed over the stages."""
        losses = [at_loss(s, t, self.power) for s, t in map_pairs(self, student, teacher)]
        return {"at": torch.stack(losses).sum()}
