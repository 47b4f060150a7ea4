"""Regress a ViT's first blocks, generate its last. Yang et al. 2022 (ViTKD), https://arxiv.org/abs/2209.02432."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillroom.methods._checks import at_least
from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_grid, to_map
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def vitkd_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """sum((student - teacher)^2) / B over masked positions: a sum over channels and positions, a mean over images.

    Args:
        student: [B, D, h, w].
        teacher: [B, D, h, w].
        mask: [B, h, w], True for the positions that count; None: all.

    Returns:
        Scalar, at least 0; 0 for maps that are equal there, and for an empty batch. It grows with D and the number of
        tokens, hence the authors' small weights.
    """
    if student.numel() == 0:
        return student.sum()
    error = (at_least_float32(student) - at_least_float32(teacher)).square().sum(1)
    return (error if mask is None else error * mask).sum() / len(error)


def random_positions(images: int, height: int, width: int, share: float, device: torch.device | None = None) -> Tensor:
    """[images, height, width], True for exactly N - floor(N (1 - share)) random positions of the N of each image."""
    positions = height * width
    masked = positions - math.floor(positions * (1 - share) + 1e-9)  # in floats 10 * (1 - 0.9) is a little less than 1
    shuffled = torch.rand(images, positions, device=device).argsort(1)  # 0..N - 1 of each image in a random order
    return (shuffled < masked).view(images, height, width)


class ViTKD(Method):
    """First blocks of a ViT through a linear layer, and the last block through masking and a convolutional generator.

    Differs: tokens are compared as maps without the class token, like the authors'; the authors' grids are equal, here
    the student's is resized to the teacher's where they differ. Any number of blocks before the last may be named;
    theirs are the first and the second.

    Use: from ViT to ViT, best together with a method of predictions. The authors: DeiT-Ti 74.42 to 76.06 on ImageNet,
    77.78 with NKD.

    Avoid: if one of the two is not a ViT. The generator's two 3x3 convolutions have the teacher's width: with a large
    teacher they cost more than a tiny student.

    Args:
        alpha: at least 0; weight of the first blocks' sum of squares.
        beta: at least 0; weight of the last block's, divided by `masked`.
        masked: share of the last block's tokens that are masked and generated, above 0, at most 1.
        student_taps: blocks, at least two, the last block last; if empty, the first, second and last.
        teacher_taps: blocks of the teacher; the i-th is compared with the student's i-th.

    Raises:
        ValueError: alpha or beta is below 0, `masked` not in (0, 1], or only one tap is named.
        IncomparableFeatures: SR-M330, in `setup`, when a tap is a vector.
    """

    weight = 1.0
    default_taps = "blocks"

    def __init__(
        self,
        *,
        alpha: float = 3e-5,
        beta: float = 3e-6,
        masked: float = 0.5,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        at_least(0, alpha=alpha, beta=beta)
        if not 0 < masked <= 1:
            raise ValueError(f"masked must be above 0 and at most 1, got {masked}")
        for name, taps in (("student_taps", student_taps), ("teacher_taps", teacher_taps)):
            if len(taps) == 1:
                raise ValueError(f"{name} must name early blocks and the last one, got {taps}")
        self.alpha, self.beta, self.masked = alpha, beta, masked
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align, self.generate, self.token = nn.ModuleList(), nn.Sequential(), nn.Parameter(torch.zeros(0))

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the linear layers, as 1x1 convolutions, the mask token and the generator."""
        self.align = nn.ModuleList()
        for name_s, name_t in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = student.taps[name_s], teacher.taps[name_t]
            if s.ndim == 2 or t.ndim == 2:
                why = "one is a vector, and it compares tokens"
                raise IncomparableFeatures(student=name_s, teacher=name_t, s=list(s.shape), t=list(t.shape), why=why)
            ours, theirs = to_map(s).shape[1], to_map(t).shape[1]
            self.align.append(nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1).to(s.device))
        self.token = nn.Parameter(torch.zeros(theirs, device=s.device))
        self.generate = nn.Sequential(
            nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1)
        ).to(s.device)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"mimic": alpha times the first blocks', "generate": beta / masked times the last's}`, see `vitkd_loss`."""
        theirs = [to_map(teacher.taps[name]) for name in self.teacher_taps]
        ours = [
            align(to_grid(to_map(student.taps[name]), t))
            for align, name, t in zip(self.align, self.student_taps, theirs, strict=True)
        ]
        mimic = [vitkd_loss(s, t) for s, t in zip(ours[:-1], theirs[:-1], strict=True)]
        last, goal = ours[-1], theirs[-1]
        mask = random_positions(len(last), last.shape[2], last.shape[3], self.masked, last.device)
        visible = torch.where(mask[:, None], self.token.to(last.dtype).view(-1, 1, 1), last)
        generated = vitkd_loss(self.generate(visible), goal, mask)
        return {"mimic": self.alpha * torch.stack(mimic).sum(), "generate": self.beta / self.masked * generated}
