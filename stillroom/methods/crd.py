"""Contrast student and teacher over a memory bank. Tian et al. 2020, https://arxiv.org/abs/1910.10699, eqs. 9-19."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._checks import above, at_least
from stillroom.methods._features import to_vector
from stillroom.methods._relations import inner, unit
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def crd_loss(
    anchor: Tensor, positive: Tensor, negatives: Tensor, mask: Tensor, scale: Tensor, temperature: float = 0.07
) -> Tensor:
    """-mean_i (log h(a_i, p_i) + sum_j log(1 - h(a_i, n_j))), h(a, b) = e / (e + N c), e = exp(a.b / T).

    h estimates the probability that a and b are embeddings of the same image rather than one of N negative pairs, whose
    mean e is c. The sum is over the N negatives of anchor i.

    Args:
        anchor: [B, D] of length 1, embeddings of one network.
        positive: [B, D] of length 1, of the same images, by the other network.
        negatives: [M, D] of length 1, of other images, by the other network.
        mask: [B, M] bool, which rows are negatives of which anchor.
        scale: scalar above 0, the c above.
        temperature: T, above 0.

    Returns:
        Scalar in nats, above 0; about log N + 1 for unrelated embeddings, 0 for an empty batch.
    """
    if len(anchor) == 0:
        return anchor.sum()
    offset = (mask.sum(1, keepdim=True).clamp_min(1) * scale).log()  # clamped: without negatives h is e / (e + c)
    same = (anchor * positive).sum(1, keepdim=True) / temperature - offset
    other = inner(anchor, negatives) / temperature - offset
    return -(F.logsigmoid(same).sum() + (F.logsigmoid(-other) * mask).sum()) / len(anchor)


class CRD(Method):
    """Contrastive representation distillation: match an image's embeddings among those of other images.

    Differs: the authors keep one row for each training image, averaged over epochs with momentum 0.5. Here the number
    of images is not known in advance, so the memory bank is a queue of the last `bank` embeddings of each network with
    their classes, without momentum. The positive of an image is its embedding by the other network in the same step,
    not the stored row, and all rows of other classes are negatives instead of a random sample. As in their code, the
    bank is initialised randomly, c is estimated once from the first batch, and only the anchors have a gradient.

    Use: for classification with a teacher of any family, together with `hinton`: on CIFAR-100 it was the best feature
    loss of its authors' comparison (resnet32x4 to resnet8x4: 75.51, `hinton` 73.33; ResNet-50 to MobileNetV2: 69.11,
    `hinton` 67.35). Without class labels all rows are negatives, also earlier embeddings of the same image.

    Avoid: with a bank many times as large as the training set: its old rows come from a student of many steps ago. With
    two or three classes, which are easy to separate, there is little to learn from the contrast.

    Args:
        dim: at least 1; width of the embeddings.
        bank: at least 1; rows of the memory bank, which are the negatives, without those of the same class.
        temperature: above 0; smaller values emphasise the nearest negatives.
        student_taps: one feature of the student; if empty, the input of its classifier.
        teacher_taps: the feature of the teacher that it is compared with.

    Raises:
        ValueError: an argument is out of its range, or a side has more than one tap.
    """

    weight = 0.8
    default_taps = "vector"
    student_bank: Tensor
    teacher_bank: Tensor
    classes: Tensor
    place: Tensor
    scales: Tensor

    def __init__(
        self,
        *,
        dim: int = 128,
        bank: int = 16384,
        temperature: float = 0.07,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        at_least(1, dim=dim, bank=bank)
        above(0, temperature=temperature)
        for name, taps in (("student_taps", student_taps), ("teacher_taps", teacher_taps)):
            if len(taps) > 1:
                raise ValueError(f"{name} must be one tap, got {list(taps)}")
        self.dim, self.bank, self.temperature = dim, bank, temperature
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.student_embed: nn.Module = nn.Identity()
        self.teacher_embed: nn.Module = nn.Identity()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build the embedding layers, and fill the memory bank with random directions of no class."""
        s, t = to_vector(student.taps[self.student_taps[0]]), to_vector(teacher.taps[self.teacher_taps[0]])
        self.student_embed = nn.Linear(s.shape[1], self.dim).to(s.device)
        self.teacher_embed = nn.Linear(t.shape[1], self.dim).to(s.device)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, unit(torch.randn(self.bank, self.dim, device=s.device)))
        self.register_buffer("classes", torch.full((self.bank,), -1, device=s.device))
        self.register_buffer("place", torch.tensor(0, device=s.device))  # index of the row that is written next
        self.register_buffer("scales", torch.zeros(2, device=s.device))  # c of both networks; 0 until estimated

    def embeddings(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        """Both networks' embeddings [B, dim] of length 1, of this process's images."""
        s = self.student_embed(to_vector(student.taps[self.student_taps[0]]))
        t = self.teacher_embed(to_vector(teacher.taps[self.teacher_taps[0]]))
        return unit(at_least_float32(s)), unit(at_least_float32(t))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"nce": ...}`: `crd_loss` of the student's anchors with the teacher's rows, plus the reverse."""
        s, t = map(gather_rows, self.embeddings(student, teacher))
        y = gather_rows(_classes(batch).to(s.device))
        mask = (y[:, None] != self.classes) | (y[:, None] < 0)
        total = s.sum() * 0
        for side, (a, b, rows) in enumerate(((s, t, self.teacher_bank), (t, s, self.student_bank))):
            rows = rows.clone()  # the bank is overwritten before the backward pass
            scale = self._scale(side, a, rows, mask)
            total = total + crd_loss(a, b.detach(), rows, mask, scale, self.temperature)
        if self.training:
            self._store(s, t, y)
        return {"nce": total}

    @torch.no_grad()
    def _scale(self, side: int, anchor: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """The mean of exp(a.b / T) over the negatives of the first batch that has any."""
        similarity = (inner(anchor, rows) / self.temperature).exp() * mask
        mean = similarity.sum() / mask.sum().clamp_min(1)
        scale = torch.where(self.scales[side] > 0, self.scales[side], mean)
        if self.training:
            self.scales[side] = scale
        return torch.where(scale > 0, scale, 1.0)

    @torch.no_grad()
    def _store(self, student: Tensor, teacher: Tensor, classes: Tensor) -> None:
        """Overwrite the oldest rows; of a batch larger than the bank only the last rows are stored."""
        last = slice(max(0, len(classes) - self.bank), None)
        rows = (self.place + torch.arange(len(classes), device=classes.device)[last]) % self.bank
        self.student_bank[rows] = student[last].to(self.student_bank.dtype)
        self.teacher_bank[rows] = teacher[last].to(self.teacher_bank.dtype)
        self.classes[rows] = classes[last]
        self.place.add_(len(classes)).remainder_(self.bank)


def _classes(batch: Batch) -> Tensor:
    """A class for each image [B], or -1 where the labels are not classes."""
    y = batch.target
    if isinstance(y, Tensor) and not y.is_floating_point() and y.numel() == len(batch):
        return y.flatten().long()
    return torch.full((len(batch),), -1)
