"""Imitate maps where objects are. Yang et al. 2022 (FGD), https://arxiv.org/abs/2111.11837, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._features import to_grid
from stillroom.methods._maps import comparable, pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def inside(boxes: Tensor, real: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How much each place counts: 1 / (the places of the smallest box on it) if any, else 1 / (the places without one).

    A box is on a place of which it covers any part. So objects weigh alike whatever their size.

    Args:
        boxes: [B, M, 4] left, top, right, bottom, in shares of the image.
        real: [B, M] bool, which of them are boxes.
        height: h.
        width: w.

    Returns:
        objects and background [B, 1, h, w], each 0 where the other is not.
    """
    left, top, right, bottom = boxes.double().unbind(-1)
    rows = _covered(top, bottom, height)
    columns = _covered(left, right, width)
    on = (rows[..., :, None] & columns[..., None, :]) & real[..., None, None]
    each = on / on.sum((-1, -2), keepdim=True).clamp_min(1)
    nothing = each.new_zeros(len(boxes), 1, height, width)  # amax needs a box, and a batch may have none
    objects = torch.cat((nothing, each), 1).amax(1, keepdim=True)
    rest = (objects == 0).to(objects)
    return objects.float(), (rest / rest.sum((2, 3), keepdim=True).clamp_min(1)).float()


def attention(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Softmax of the mean absolute value over temperature, times its length: of places and of channels.

    Args:
        feature: [B, C, h, w].
        temperature: above 0; a lower one looks at fewer.

    Returns:
        [B, 1, h, w] and [B, C, 1, 1], with mean 1.
    """
    size = at_least_float32(feature).abs()
    places = (size.mean(1).flatten(1) / temperature).softmax(1) * size[0, 0].numel()
    channels = (size.mean((2, 3)) / temperature).softmax(1) * size.shape[1]
    return places.view(len(size), 1, *size.shape[2:]), channels[..., None, None]


def fgd_loss(
    student: Tensor, teacher: Tensor, boxes: Tensor, real: Tensor, *, background: float, temperature: float
) -> Tensor:
    """sum((objects + background * rest) * A_places * A_channels * (student - teacher)^2) / B.

    objects and rest as `inside` has them, A the teacher's `attention`. A sum over channels, a mean over images.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.
        boxes: [B, M, 4], see `inside`.
        real: [B, M].
        background: weight of what is outside of all boxes.
        temperature: of the attention.

    Returns:
        Scalar, at least 0; 0 when the maps are equal, and for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    objects, rest = inside(boxes, real, student.shape[2], student.shape[3])
    places, channels = attention(teacher, temperature)
    apart = (at_least_float32(student) - at_least_float32(teacher)).square()
    return ((objects + background * rest) * places * channels * apart).sum() / len(student)


def attention_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum |A(student) - A(teacher)| / B, over places and channels.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.
        temperature: of the attention.

    Returns:
        Scalar in 0..2 (h w + C); 0 where both look at the same, and for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    both = zip(attention(student, temperature), attention(teacher, temperature), strict=True)
    return torch.stack([(s - t).abs().sum() for s, t in both]).sum() / len(student)


class FGD(Method):
    """The focal part of focal and global distillation: objects and background imitated apart, small objects as much as
    large ones, most where the teacher looks.

    Differs: the global part, a relation of all places by a block of its own, is left out. A box is on the places that
    it covers; theirs is on one row and column more. An image where nobody has looked for boxes is taken as one without.
    Boxes around a crowd count as objects. A student's map of another size is resized.

    Use: detectors whose objects fill little of the image, where a plain regression of maps teaches background.

    Avoid: for images without boxes: nothing is left but a regression where the teacher looks.

    Args:
        background: weight of the background's places, against 1 for the objects'; the authors' 0.5.
        attention: weight of the two networks' attention maps being alike, at least 0.
        temperature: of the attention, above 0.
        student_taps: maps of the student; () has the ends of its stages found.
        teacher_taps: the teacher's, the i-th compared with the i-th; the losses are summed.

    Raises:
        ValueError: an argument is out of its range.
        IncomparableFeatures: SR-M330, in `setup`, where a vector meets a map.
    """

    weight = 1e-3
    reads = "stages"
    output_kind = ("boxes",)

    def __init__(
        self,
        *,
        background: float = 0.5,
        attention: float = 1.0,
        temperature: float = 0.5,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        at_least(0, background=background, attention=attention)
        above(0, temperature=temperature)
        self.background, self.attention, self.temperature = background, attention, temperature
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.align = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Align widths where they differ."""
        found = [(s.shape[1], t.shape[1], s.device) for s, t in comparable(self, student, teacher, vectors=False)]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"objects": ..., "attention": ...}`, see `fgd_loss` and `attention_loss`, summed over the taps."""
        boxes = batch.target["boxes"]
        real = (batch.target["labels"] >= 0) & batch.target["known"][:, None]
        maps = [
            (to_grid(align(s), t), t) for (s, t), align in zip(pairs(self, student, teacher), self.align, strict=True)
        ]
        how = {"background": self.background, "temperature": self.temperature}
        objects = torch.stack([fgd_loss(s, t, boxes, real, **how) for s, t in maps]).sum()
        looks = torch.stack([attention_loss(s, t, self.temperature) for s, t in maps]).sum()
        return {"objects": objects, "attention": self.attention * looks}


def _covered(low: Tensor, high: Tensor, count: int) -> Tensor:
    """[...] -> [..., count]: which of `count` equal parts of 0..1 a span from `low` to `high` lies on; at least one."""
    first = (low * count).floor().clamp(0, count - 1)[..., None]
    last = torch.maximum((high * count).ceil().clamp(0, count)[..., None], first + 1)
    at = torch.arange(count, device=low.device)
    return (at >= first) & (at < last)
