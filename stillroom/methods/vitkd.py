"""Mimic a ViT's first blocks, generate its last. Yang et al. 2022 (ViTKD), https://arxiv.org/abs/2209.02432."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stillroom.methods._checks import at_least
from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_grid, to_map
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def vitkd_loss(student: Tensor, teacher: Tensor, counts: Tensor | None = None) -> Tensor:
    """sum((student - teacher)^2) / B over the places that count: a sum over channels and places, a mean over images.

    Args:
        student: [B, D, h, w].
        teacher: [B, D, h, w].
        counts: [B, h, w], true for the places that count; None: all.

    Returns:
        Scalar, at least 0; 0 when the maps agree where it counts. It grows with D and the number of tokens, hence the
        authors' small weights. An empty batch costs 0.
    """
    if student.numel() == 0:
        return student.sum()
    apart = (at_least_float32(student) - at_least_float32(teacher)).square().sum(1)
    return (apart if counts is None else apart * counts).sum() / len(apart)


def masked_places(images: int, height: int, width: int, share: float, device: torch.device | None = None) -> Tensor:
    """[images, height, width], true for exactly N - floor(N (1 - share)) of each image's N places, drawn at random."""
    places = height * width
    hidden = places - math.floor(places * (1 - share) + 1e-9)  # 10 * (1 - 0.9) is a little less than 1
    shuffled = torch.rand(images, places, device=device).argsort(1)  # each image's 0..N - 1 in a random order
    return (shuffled < hidden).view(images, height, width)


class ViTKD(Method):
    """Blocks of a ViT, early ones by a linear layer and the last through masking and a convolutional generator.

    Differs: tokens are compared as maps without the class token, as the authors' are; where the two grids differ the
    student's is pooled or stretched to the teacher's, which the authors, with equal grids, need not. Any number of
    blocks before the last may be named; theirs are the first and the second.

    Use: from ViT to ViT, best beside a method of predictions. The authors: DeiT-Ti 74.42 to 76.06 on ImageNet, 77.78
    with NKD.

    Avoid: where one of the two is no ViT. The generator's two 3x3 convolutions are as wide as the teacher: from a large
    teacher they cost more than a tiny student.

    Args:
        alpha: of the early blocks' sum of squares, at least 0.
        beta: of the last block's, at least 0; divided by `masked`.
        masked: share of the last block's tokens that are hidden and have to be generated, above 0, at most 1.
        student_taps: blocks, the last one last, at least two. Left out on both sides: the first, second and last.
        teacher_taps: the teacher's; the i-th is compared with the student's i-th.

    Raises:
        ValueError: alpha or beta is below 0, `masked` not in (0, 1], or one tap alone is named.
        IncomparableFeatures: SR-M330, in `setup`, when a tap gives a vector.
    """

    weight = 1.0
    reads = "blocks"

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
        """Size the linear layers, which are 1x1 convolutions here, the mask token and the generator."""
        self.align = nn.ModuleList()
        for name_s, name_t in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = student.taps[name_s], teacher.taps[name_t]
            if s.ndim == 2 or t.ndim == 2:
                why = "a vector has no tokens to mimic or to hide"
                raise IncomparableFeatures(student=name_s, teacher=name_t, s=list(s.shape), t=list(t.shape), why=why)
            ours, theirs = to_map(s).shape[1], to_map(t).shape[1]
            self.align.append(nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1).to(s.device))
        self.token = nn.Parameter(torch.zeros(theirs, device=s.device))
        self.generate = nn.Sequential(
            nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1)
        ).to(s.device)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"mimic": alpha x the early blocks', "generate": beta / masked x the hidden places'}`, see `vitkd_loss`."""
        theirs = [to_map(teacher.taps[name]) for name in self.teacher_taps]
        ours = [
            align(to_grid(to_map(student.taps[name]), t))
            for align, name, t in zip(self.align, self.student_taps, theirs, strict=True)
        ]
        mimic = [vitkd_loss(s, t) for s, t in zip(ours[:-1], theirs[:-1], strict=True)]
        last, wanted = ours[-1], theirs[-1]
        hidden = masked_places(len(last), last.shape[2], last.shape[3], self.masked, last.device)
        shown = torch.where(hidden[:, None], self.token.to(last.dtype).view(-1, 1, 1), last)
        made = vitkd_loss(self.generate(shown), wanted, hidden)
        return {"mimic": self.alpha * torch.stack(mimic).sum(), "generate": self.beta / self.masked * made}
