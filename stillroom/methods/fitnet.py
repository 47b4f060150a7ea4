"""Regress one inner feature onto the teacher's. Romero et al. 2015, https://arxiv.org/abs/1412.6550, eq. 3."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_grid, to_map
from stillroom.methods._maps import checked_map_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean((student - teacher)^2) over all elements, the student's map brought to the teacher's size.

    Args:
        student: [B, C, h, w], [B, N, C] or [B, C], already as wide as the teacher.
        teacher: [B, C, H, W], [B, M, C] or [B, C]. Of tokens only those that are places count.

    Returns:
        Scalar, at least 0; 0 when the features are equal, and for an empty batch. The paper has 1/2 of the squared
        norm; the mean, as in the code people compare with, keeps the weight independent of the map's size.
    """
    s, t = to_map(student), to_map(teacher)
    return s.sum() if s.numel() == 0 else F.mse_loss(to_grid(s, t), t)


class FitNet(Method):
    """Hint learning: a 1x1 convolution brings the student's feature to the teacher's width, and it is regressed.

    Differs: hint and task are trained together, not one after the other. The regressor is the convolution alone, where
    widely used code puts batch norm and ReLU behind it, so features before an activation can be met too. Tokens are
    maps here, and maps of different sizes are resized. Hints at several places are summed.

    Use: the plainest feature loss: two networks of one family, and one place that you trust in each.

    Avoid: across families. ResNet-50 to MobileNetV2 on CIFAR-100 came out at 63.2 %, below the 64.6 % of no teacher
    (Tian et al. 2020).

    Args:
        student_taps: places in the student, such as "layer2"; () has one found, half-way.
        teacher_taps: places in the teacher, as many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 100.0
    default_taps = "middle"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.regress = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Size the regressors."""
        found = checked_map_pairs(self, student, teacher)
        self.regress = nn.ModuleList(nn.Conv2d(s.shape[1], t.shape[1], 1).to(s.device) for s, t in found)

    def project(self, output: Output) -> Output:
        """The student's features as wide as the teacher's, each under the names of both."""
        made = {
            _both(s, t): regress(to_map(output.taps[s]))
            for s, t, regress in zip(self.student_taps, self.teacher_taps, self.regress, strict=True)
        }
        return replace(output, taps=output.taps | made)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"hint": ...}`, see `hint_loss`."""
        named = zip(self.student_taps, self.teacher_taps, strict=True)
        return {"hint": torch.stack([hint_loss(student.taps[_both(s, t)], teacher.taps[t]) for s, t in named]).sum()}


def _both(student: str, teacher: str) -> str:
    """A name of its own for every pair: one feature of the student may be compared with two of the teacher."""
    return f"{student} ~ {teacher}"
