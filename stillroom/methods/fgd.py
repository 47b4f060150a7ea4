"""Regress maps, weighted by objects. Yang et al. 2022 (FGD), https://arxiv.org/abs/2111.11837, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._features import to_grid
from stillroom.methods._maps import checked_map_pairs, map_pairs
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def box_weights(boxes: Tensor, real: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Weights of the positions of a map: 1 / (positions of the smallest box on it), or 1 / (positions without a box).

    A box covers each position that it overlaps. So all objects have the same total weight, whatever their size.

    Args:
        boxes: [B, M, 4] left, top, right, bottom, as fractions of the image's width and height.
        real: [B, M] bool, False for unused rows.
        height: h.
        width: w.

    Returns:
        Weights of objects and of background, [B, 1, h, w] each; at every position one of the two is 0.
    """
    left, top, right, bottom = boxes.double().unbind(-1)
    rows = _covered(top, bottom, height)
    columns = _covered(left, right, width)
    covered = (rows[..., :, None] & columns[..., None, :]) & real[..., None, None]
    each = covered / covered.sum((-1, -2), keepdim=True).clamp_min(1)
    zeros = each.new_zeros(len(boxes), 1, height, width)  # amax needs at least one box, and a batch may have none
    objects = torch.cat((zeros, each), 1).amax(1, keepdim=True)
    rest = (objects == 0).to(objects)
    return objects.float(), (rest / rest.sum((2, 3), keepdim=True).clamp_min(1)).float()


def attention(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Spatial and channel attention: softmax of the mean absolute value / temperature, scaled to mean 1.

    Args:
        feature: [B, C, h, w].
        temperature: above 0; smaller values concentrate the attention.

    Returns:
        [B, 1, h, w] and [B, C, 1, 1].
    """
    size = at_least_float32(feature).abs()
    positions = (size.mean(1).flatten(1) / temperature).softmax(1) * size[0, 0].numel()
    channels = (size.mean((2, 3)) / temperature).softmax(1) * size.shape[1]
    return positions.view(len(size), 1, *size.shape[2:]), channels[..., None, None]


def fgd_loss(
    student: Tensor, teacher: Tensor, boxes: Tensor, real: Tensor, *, background: float, temperature: float
) -> Tensor:
    """sum((objects + background * rest) * A_positions * A_channels * (student - teacher)^2) / B.

    objects and rest are the weights of `box_weights`, A is the teacher's `attention`. A sum over channels and
    positions, a mean over images.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.
        boxes: [B, M, 4], see `box_weights`.
        real: [B, M].
        background: weight of the background.
        temperature: of the attention.

    Returns:
        Scalar, at least 0; 0 for equal maps, and for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    objects, rest = box_weights(boxes, real, student.shape[2], student.shape[3])
    positions, channels = attention(teacher, temperature)
    error = (at_least_float32(student) - at_least_float32(teacher)).square()
    return ((objects + background * rest) * positions * channels * error).sum() / len(student)


def attention_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum |A(student) - A(teacher)| / B, over positions and over channels.

    Args:
        student: [B, C, h, w].
        teacher: the same shape.
        temperature: of the attention.

    Returns:
        Scalar in 0..2 (h w + C); 0 for equal attention, and for an empty batch.
    """
    if student.numel() == 0:
        return student.sum()
    pairs = zip(attention(student, temperature), attention(teacher, temperature), strict=True)
    return torch.stack([(s - t).abs().sum() for s, t in pairs]).sum() / len(student)


class FGD(Method):
    """Focal part of focal and global distillation: regression of maps, weighted by objects, background and attention.

    Differs: the global part, a relation of all positions by a block with its own parameters, is left out. A box covers
    the positions that it overlaps; the authors' covers one more row and column. An image that was not annotated with
    boxes is treated as one without objects. Crowds count as objects. A student's map of another size is resized.

    Use: detectors whose objects cover little of the image, where an unweighted regression mostly fits the background.

    Avoid: for images without boxes, where only a regression weighted by attention is left.

    Args:
        background: weight of the background, relative to 1 for the objects; the authors use 0.5.
        attention: at least 0; weight of the difference of the attention maps.
        temperature: above 0; of the attention.
        student_taps: maps of the student; if empty, the ends of its stages.
        teacher_taps: maps of the teacher; the i-th is compared with the student's i-th, and the losses are summed.

    Raises:
        ValueError: an argument is out of its range.
        IncomparableFeatures: SR-M330, in `setup`, for vectors.
    """

    weight = 1e-3
    default_taps = "stages"
    output_kinds = ("boxes",)

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
        """Build a convolution for each pair of different widths."""
        found = [
            (s.shape[1], t.shape[1], s.device) for s, t in checked_map_pairs(self, student, teacher, vectors=False)
        ]
        self.align = nn.ModuleList((nn.Conv2d(c, d, 1) if c != d else nn.Identity()).to(at) for c, d, at in found)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"objects": ..., "attention": ...}`: `fgd_loss` and `attention_loss`, summed over the taps."""
        boxes = batch.target["boxes"]
        real = (batch.target["labels"] >= 0) & batch.target["known"][:, None]
        maps = [
            (to_grid(align(s), t), t)
            for (s, t), align in zip(map_pairs(self, student, teacher), self.align, strict=True)
        ]
        settings = {"background": self.background, "temperature": self.temperature}
        objects = torch.stack([fgd_loss(s, t, boxes, real, **settings) for s, t in maps]).sum()
        attention = torch.stack([attention_loss(s, t, self.temperature) for s, t in maps]).sum()
        return {"objects": objects, "attention": self.attention * attention}


def _covered(low: Tensor, high: Tensor, count: int) -> Tensor:
    """[...] -> [..., count]: which of `count` equal parts of 0..1 the interval low..high overlaps; at least one."""
    first = (low * count).floor().clamp(0, count - 1)[..., None]
    last = torch.maximum((high * count).ceil().clamp(0, count)[..., None], first + 1)
    at = torch.arange(count, device=low.device)
    return (at >= first) & (at < last)
