"""Look, channel by channel, at the same places. Shu et al. 2021 (CWD), https://arxiv.org/abs/2011.13256, eq. 3-5."""

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


def where(feature: Tensor, temperature: float = 4.0) -> Tensor:
    """Log softmax(f / T) over the places of every channel: how much of a channel lies where.

    Args:
        feature: [B, C, h, w] or [B, N, C].
        temperature: T, above 0; larger looks at more of the map.

    Returns:
        [B, C, h * w]; its exponentials sum to 1 over the places. Unchanged when a channel is shifted by a number.
    """
    return F.log_softmax(to_map(feature).flatten(2) / temperature, dim=2)


def cwd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 mean over images and channels of KL(p_teacher || p_student), p = exp(`where`), at the smaller one's size.

    Args:
        student: [B, C, h, w] or [B, N, C].
        teacher: [B, C, H, W] or [B, M, C].
        temperature: above 0.

    Returns:
        Scalar in nats times T^2, at least 0; 0 when every channel is the teacher's up to a shift, and for no images.
    """
    s, t = to_smaller_grid(to_map(student), to_map(teacher))
    said, taught = where(s, temperature), where(t, temperature)
    rows = max(said.shape[0] * said.shape[1], 1)
    return temperature**2 * (taught.exp() * (taught - said)).sum() / rows


class CWD(Method):
    """Channel-wise distillation: every channel is made a distribution over places, and the student's is the teacher's.

    Differs: maps of different sizes are compared at the smaller size; the authors resize the student's. The 1x1
    convolution stands only where the widths differ. Tokens are maps here.

    Use: segmentation and detection. On a detector's or segmenter's features it needs nothing else; between two
    segmenters `of = "logits"`, where a channel is a class, did as well in the paper and learns nothing besides the
    student. The authors' weights are 50 for features and 3 for logits, which are also the ones taken here.

    Avoid: maps of a few places, where there is hardly a where.

    Args:
        temperature: above 0.
        of: compare "features", or the "logits" of two segmenters.
        student_taps: places in the student; () has its last map found.
        teacher_taps: places in the teacher, as many.

    Raises:
        ValueError: the temperature is not above 0, or `of` is another word.
        IncomparableFeatures: SR-M330, in `setup`, for a vector, or logits without places.
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
        if of == "logits":  # of this one method only: the class says what it does where the recipe says nothing
            self.default_taps, self.weight = "pred", 3.0  # type: ignore[misc]

    def setup(self, student: Output, teacher: Output) -> None:
        """Align widths where they differ; refuse what has no places."""
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
        found = [
            cwd_loss(align(s), t, self.temperature)
            for (s, t), align in zip(map_pairs(self, student, teacher), self.align, strict=True)
        ]
        return {"cwd": torch.stack(found).sum()}


def _maps_only(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 4 or student.shape[1] != teacher.shape[1]:
        why = 'with of = "logits" it compares a logit for every class and pixel'
        shapes = {"s": list(student.shape), "t": list(teacher.shape)}
        raise IncomparableFeatures(student="the student's prediction", teacher="the teacher's", **shapes, why=why)
