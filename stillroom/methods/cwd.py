"""Match each channel's distribution over positions. Shu et al. 2021, https://arxiv.org/abs/2011.13256, eq. 3-5."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._checks import above, one_of
from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_map
from stillroom.methods._maps import checked_map_pairs, map_pairs, to_smaller_grid
from stillroom.methods.method import DefaultTaps, Method
from stillroom.types import Batch, Output, Terms

Of = Literal["features", "logits"]


def spatial_log_softmax(feature: Tensor, temperature: float = 4.0) -> Tensor:
    """Log softmax(f / T) over the positions of each channel.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        temperature: T, above 0; larger values spread the distribution over more positions.

    Returns:
        [B, C, h * w]; its exponentials sum to 1 over the positions. Unchanged when a constant is added to a channel.
    """
    return F.log_softmax(to_map(feature).flatten(2) / temperature, dim=2)


def cwd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 mean over images and channels of KL(p_teacher || p_student), p the softmax over positions.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, C, H, W] or [B, M, C]. Both are compared at the smaller of the two sizes.
        temperature: T, above 0.

    Returns:
        Scalar in nats times T^2, at least 0; 0 when each channel equals the teacher's up to a constant, and without
        images.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    log_q, log_p = spatial_log_softmax(s, temperature), spatial_log_softmax(t, temperature)
    channels = max(log_q.shape[0] * log_q.shape[1], 1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum() / channels


class CWD(Method):
    """Channel-wise distillation: each channel, normalised to a distribution over positions, should equal the teacher's.

    Differs: maps of different sizes are compared at the smaller size; the authors resize the student's. The 1x1
    convolution is used only where the widths differ. Tokens are treated as maps.

    Use: segmentation and detection. On features of detectors and segmenters it needs nothing else; between two
    segmenters `of = "logits"`, where a channel is a class, was as good in the paper and has no trainable modules. The
    weights are the authors': 50 for features and 3 for logits.

    Avoid: maps with few positions, over which the distribution carries little information.

    Args:
        temperature: above 0.
        of: compare "features", or the "logits" of two segmenters.
        student_taps: features of the student; if empty, its last map.
        teacher_taps: features of the teacher, equally many.

    Raises:
        ValueError: the temperature is not above 0, or `of` is neither.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, or for logits that are not maps.
    """

    weight = 50.0
    default_taps: ClassVar[DefaultTaps] = "last"

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        of: Of = "features",
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        above(0, temperature=temperature)
        one_of(Of, of=of)
        self.temperature, self.of = temperature, of
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()
        if of == "logits":  # set on the instance; the class attributes are those of features, the default
            self.default_taps, self.weight = "pred", 3.0  # type: ignore[misc]

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a convolution for each pair of different widths; refuse vectors."""
        if self.of == "logits":
            return _maps_only(student.pred, teacher.pred)
        found = [
            (s.shape[1], t.shape[1], s.device) for s, t in checked_map_pairs(self, student, teacher, vectors=False)
        ]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"cwd": ...}`: `cwd_loss`, summed over the pairs of taps."""
        if self.of == "logits":
            return {"cwd": cwd_loss(student.pred, teacher.pred, self.temperature)}
        losses = [
            cwd_loss(align(s), t, self.temperature)
            for (s, t), align in zip(map_pairs(self, student, teacher), self.align, strict=True)
        ]
        return {"cwd": torch.stack(losses).sum()}


def _maps_only(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 4 or student.shape[1] != teacher.shape[1]:
        why = 'with of = "logits" it compares logits of each class and pixel'
        shapes = {"s": list(student.shape), "t": list(teacher.shape)}
        raise IncomparableFeatures(student="the student's prediction", teacher="the teacher's", **shapes, why=why)
