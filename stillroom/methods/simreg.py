"""Regress pooled vectors through a projector. Navaneet et al. 2021 (SimReg), https://arxiv.org/abs/2201.05131."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._features import to_vector
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def simreg_loss(student: Tensor, teacher: Tensor, *, unit: bool = True) -> Tensor:
    """mean_b |s_b - t_b|^2 of unit vectors, which is 2 - 2 cos; without `unit` mean_b |s_b - t_b|^2 / D of the vectors.

    Args:
        student: [B, D], after the projector.
        teacher: [B, D].
        unit: whether vectors are first normalised to length 1.

    Returns:
        Scalar, at least 0, with `unit` at most 4; 0 for equal vectors, or with `unit` equal directions, and for an
        empty batch.
    """
    s, t = at_least_float32(student), at_least_float32(teacher)
    if s.numel() == 0:
        return s.sum()
    if unit:
        return (F.normalize(s, dim=1, eps=1e-8) - F.normalize(t, dim=1, eps=1e-8)).square().sum(1).mean()
    return F.mse_loss(s, t)


class SimReg(Method):
    """A projector maps the student's pooled vector to the teacher's; it is discarded after training.

    Differs: the authors use batch norm in the projector, which fails for a single image; here it is layer norm, and the
    number of layers is an argument. Several pairs of taps are averaged. With one layer and `unit` it is twice `cosine`,
    with a projector for equal widths too.

    Use: embeddings of another width than the teacher's, and backbones for other tasks: the vector before the projector
    is less constrained than the one that is compared.

    Avoid: where the student's own vectors must be comparable with the teacher's: only the projected ones are.

    Args:
        layers: linear layers of the projector, at least 1; between them layer norm and ReLU, in the teacher's width.
        unit: whether directions are compared, or vectors.
        student_taps: features of the student, averaged over positions; if empty, the input of its head.
        teacher_taps: features of the teacher; the i-th is compared with the student's i-th.

    Raises:
        ValueError: `layers` is below 1.
    """

    weight = 1.0
    default_taps = "vector"

    def __init__(
        self,
        *,
        layers: int = 2,
        unit: bool = True,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.layers, self.unit = layers, unit
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.projectors = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a projector for each pair."""
        self.projectors = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_vector(student.taps[s]), to_vector(teacher.taps[t])
            self.projectors.append(_projector(ours.shape[1], theirs.shape[1], self.layers).to(ours.device))

    def project(self, output: Output) -> Output:
        """The student's vectors, projected, each named after both taps."""
        named = zip(self.student_taps, self.teacher_taps, self.projectors, strict=True)
        projected = {f"{s} ~ {t}": projector(to_vector(output.taps[s])) for s, t, projector in named}
        return replace(output, taps=output.taps | projected)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"regression": ...}`, see `simreg_loss`."""
        losses = [
            simreg_loss(student.taps[f"{s} ~ {t}"], to_vector(teacher.taps[t]), unit=self.unit)
            for s, t in zip(self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"regression": torch.stack(losses).mean()}


def _projector(inputs: int, outputs: int, layers: int) -> nn.Module:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*parts, nn.Linear(inputs, outputs))
