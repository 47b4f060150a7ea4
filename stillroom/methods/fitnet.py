"""Regress an intermediate feature of the teacher. Romero et al. 2015, https://arxiv.org/abs/1412.6550, eq. 3."""

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
    """mean((student - teacher)^2) over all elements; the student's map is resized to the teacher's.

    Args:
        student: [B, C, h, w], [B, N, C] or [B, C], already projected to the teacher's width.
        teacher: [B, C, H, W], [B, M, C] or [B, C]. Prefix tokens are left out.

    Returns:
        Scalar, at least 0; 0 for equal features, and for an empty batch. Differs: the paper has half of the squared
        norm; the mean, as in widely used code, makes the weight independent of the map's size.
    """
    s, t = to_map(student), to_map(teacher)
    return s.sum() if s.numel() == 0 else F.mse_loss(to_grid(s, t), t)


class FitNet(Method):
    """Hint learning: a 1x1 convolution maps the student's feature to the teacher's width, and the result is regressed.

    Differs: hint and task are trained together, not one after the other. The regressor is the convolution alone, while
    widely used code adds batch norm and ReLU, so that features before an activation can be regressed too. Tokens are
    treated as maps, and maps of different sizes are resized. Several hints are summed.

    Use: the simplest feature loss: two networks of one family, with one suitable feature in each.

    Avoid: across families. ResNet-50 to MobileNetV2 on CIFAR-100 reached 63.2 %, below the 64.6 % without a teacher
    (Tian et al. 2020).

    Args:
        student_taps: features of the student, such as "layer2"; if empty, the one half-way.
        teacher_taps: features of the teacher, equally many.

    Raises:
        IncomparableFeatures: SR-M330, in `setup`, where a vector would be compared with a map.
    """

    weight = 100.0
    default_taps = "middle"

    def __init__(self, *, student_taps: tuple[str, ...] = (), teacher_taps: tuple[str, ...] = ()):
        super().__init__()
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.regress = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the regressors."""
        found = checked_map_pairs(self, student, teacher)
        self.regress = nn.ModuleList(nn.Conv2d(s.shape[1], t.shape[1], 1).to(s.device) for s, t in found)

    def project(self, output: Output) -> Output:
        """The student's features mapped to the teacher's width, each named after both taps."""
        projected = {
            _pair(s, t): regress(to_map(output.taps[s]))
            for s, t, regress in zip(self.student_taps, self.teacher_taps, self.regress, strict=True)
        }
        return replace(output, taps=output.taps | projected)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"hint": ...}`, see `hint_loss`."""
        named = zip(self.student_taps, self.teacher_taps, strict=True)
        return {"hint": torch.stack([hint_loss(student.taps[_pair(s, t)], teacher.taps[t]) for s, t in named]).sum()}


def _pair(student: str, teacher: str) -> str:
    """A name for each pair: one feature of the student may be compared with two of the teacher."""
    return f"{student} ~ {teacher}"
