"""Predict from every stage what the teacher does. Hao et al. 2023 (OFA-KD), https://arxiv.org/abs/2310.19444."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._checks import above
from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_map
from stillroom.methods._logits import labelled, rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def ofa_loss(student: Tensor, teacher: Tensor, target: Tensor, eps: float = 1.0, temperature: float = 1.0) -> Tensor:
    """-sum_c [(p_t(c) + y(c))^eps - y(c)] log p_s(c), p = softmax(z / temperature), y one-hot: a mean over rows.

    At eps 1 this is the cross-entropy of the student with the teacher. A larger eps raises what the true class counts
    for and lowers the others: a teacher of another family is trusted less where the label does not bear it out.

    Args:
        student: logits [M, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.
        target: the true class of each row, [M], 0..K - 1.
        eps: above 0; below 1 it does the reverse.
        temperature: above 0, in units of logits.

    Returns:
        Scalar in nats, at least 0; two equal networks pay the entropy of what they say, at eps 1. No factor T^2, as in
        the authors' code. An empty batch costs 0.
    """
    s, t = rows(student), rows(teacher)
    if s.numel() == 0:
        return s.sum()
    truth = F.one_hot(target, s.shape[1]).to(t.dtype)
    wanted = (F.softmax(t / temperature, 1) + truth) ** eps - truth
    return -(wanted * F.log_softmax(s / temperature, 1)).sum(1).mean()


def branch(channels: int, width: int, classes: int) -> nn.Sequential:
    """A small classifier [B, channels, h, w] -> [B, classes]: one separable convolution, then the mean over places."""
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
    """The teacher's predictions for every stage of the student, through a small classifier each: one for all families.

    Differs: a branch is one separable convolution with a group norm, whatever the student; the authors stack one for
    every halving that is left, with batch norm, and give ViTs transformer blocks and the class token. Ours keep a step
    cheap and work for one image. Every branch is as wide as the student's deepest stage; theirs as the wider network.

    Use: where student and teacher are of different families (ViT, CNN, MLP): no features are compared, only what can
    be said of classes from them. Larger eps for many classes; the authors take 1 on CIFAR-100 and 1.5 on ImageNet.

    Avoid: without labels of classes, and for predictions per pixel. Between like networks a loss of features says more.

    Args:
        eps: above 0, see `ofa_loss`.
        temperature: above 0.
        student_taps: the stages that get a branch. Left out: all. The teacher is not tapped.

    Raises:
        ValueError: eps or the temperature is not above 0.
        StillroomError: SR-M330, in `setup`, when the teacher does not say one thing of each image; SR-M332, when labels
            are no classes.
    """

    weight = 1.0
    needs_labels = True
    reads = "stages"

    def __init__(self, *, eps: float = 1.0, temperature: float = 1.0, student_taps: tuple[str, ...] = ()):
        super().__init__()
        above(0, eps=eps)
        above(0, temperature=temperature)
        self.eps, self.temperature = eps, temperature
        self.student_taps = tuple(student_taps)
        self.branches = nn.ModuleList()

    def connect(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """The student's stages only."""
        self.student_taps = student

    def setup(self, student: Output, teacher: Output) -> None:
        """A branch for each stage, each with the teacher's classes."""
        if teacher.pred.ndim != 2:
            raise IncomparableFeatures(
                student=self.student_taps[-1],
                teacher="prediction",
                s=list(student.taps[self.student_taps[-1]].shape),
                t=list(teacher.pred.shape),
                why="a branch predicts one class for each image, and the teacher one for each of its pixels",
            )
        width, classes = to_map(student.taps[self.student_taps[-1]]).shape[1], teacher.pred.shape[1]
        self.branches = nn.ModuleList()
        for name in self.student_taps:
            tap = to_map(student.taps[name])
            self.branches.append(branch(tap.shape[1], width, classes).to(tap.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"pred": of the student's own logits, "stages": of the branches, summed}`, see `ofa_loss`."""
        taps = zip(self.branches, self.student_taps, strict=True)
        said = [
            at_least_float32(student.pred),
            *(at_least_float32(one(to_map(student.taps[name]))) for one, name in taps),
        ]
        ours, theirs, target = labelled(batch, torch.cat(said, 1), teacher.pred)
        pred, *stages = (
            ofa_loss(one, theirs, target, self.eps, self.temperature) for one in ours.chunk(len(said), dim=1)
        )
        return {"pred": pred, "stages": torch.stack(stages).sum()}
