"""Distil predictions into every stage. Hao et al. 2023 (OFA-KD), https://arxiv.org/abs/2310.19444."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._checks import above
from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_map
from stillroom.methods._logits import labelled_rows, rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def ofa_loss(student: Tensor, teacher: Tensor, target: Tensor, eps: float = 1.0, temperature: float = 1.0) -> Tensor:
    """-sum_c [(p_t(c) + y(c))^eps - y(c)] log p_s(c), p = softmax(z / temperature), y one-hot: a mean over rows.

    With eps = 1 it is the cross-entropy of the student with the teacher. A larger eps raises the weight of the true
    class relative to the others, so that a teacher of another family is trusted less where it disagrees with the label.

    Args:
        student: logits [M, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        target: the true class of each row, [M], 0..K - 1.
        eps: above 0; below 1 it has the opposite effect.
        temperature: above 0, in units of logits.

    Returns:
        Scalar in nats, at least 0; for equal networks and eps = 1 the entropy of the prediction. 0 for an empty batch.
        As in the authors' code there is no factor T^2.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    truth = F.one_hot(target, s.shape[1]).to(t.dtype)
    weights = (F.softmax(t / temperature, 1) + truth) ** eps - truth
    return -(weights * F.log_softmax(s / temperature, 1)).sum(1).mean()


def branch(channels: int, width: int, classes: int) -> nn.Sequential:
    """A small classifier [B, channels, h, w] -> [B, classes]: a separable convolution and global average pooling."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class OFA(Method):
    """One-for-all: a small classifier on each stage of the student learns the teacher's predictions.

    Differs: a branch is one separable convolution with group norm for any student; the authors stack one for each
    remaining halving, with batch norm, and use transformer blocks and the class token for ViTs. Ours are cheaper and
    work with a batch of one image. Each branch has the width of the student's deepest stage; theirs that of the wider
    network.

    Use: where student and teacher are of different families (ViT, CNN, MLP): predictions are compared, not features. A
    larger eps for many classes; the authors use 1 on CIFAR-100 and 1.5 on ImageNet.

    Avoid: without class labels, and for predictions per pixel. For networks of one family, a feature loss transfers
    more.

    Args:
        eps: above 0, see `ofa_loss`.
        temperature: above 0.
        student_taps: the stages that get a branch; if empty, all. The teacher has no taps.

    Raises:
        ValueError: eps or the temperature is not above 0.
        StillroomError: SR-M330, in `setup`, when the teacher does not predict one class per image; SR-M332, when labels
            are not classes.
    """

    weight = 1.0
    needs_labels = True
    default_taps = "stages"

    def __init__(self, *, eps: float = 1.0, temperature: float = 1.0, student_taps: tuple[str, ...] = ()):
        super().__init__()
        above(0, eps=eps)
        above(0, temperature=temperature)
        self.eps, self.temperature = eps, temperature
        self.student_taps = tuple(student_taps)
        self.branches = nn.ModuleList()

    def bind_taps(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """The student's stages only."""
        self.student_taps = student

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a branch for each stage, with the teacher's classes."""
        if teacher.pred.ndim != 2:
            raise IncomparableFeatures(
                student=self.student_taps[-1],
                teacher="prediction",
                s=list(student.taps[self.student_taps[-1]].shape),
                t=list(teacher.pred.shape),
                why="a branch predicts one class per image, and the teacher one per pixel",
            )
        width, classes = to_map(student.taps[self.student_taps[-1]]).shape[1], teacher.pred.shape[1]
        self.branches = nn.ModuleList()
        for name in self.student_taps:
            tap = to_map(student.taps[name])
            self.branches.append(branch(tap.shape[1], width, classes).to(tap.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"pred": of the student's own logits, "stages": of the branches, summed}`, see `ofa_loss`."""
        taps = zip(self.branches, self.student_taps, strict=True)
        logits = [
            at_least_float32(student.pred),
            *(at_least_float32(branch(to_map(student.taps[name]))) for branch, name in taps),
        ]
        ours, theirs, target = labelled_rows(batch, torch.cat(logits, 1), teacher.pred)
        pred, *stages = (
            ofa_loss(part, theirs, target, self.eps, self.temperature) for part in ours.chunk(len(logits), dim=1)
        )
        return {"pred": pred, "stages": torch.stack(stages).sum()}
