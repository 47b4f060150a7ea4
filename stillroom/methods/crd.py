"""Tell an image from others through the teacher. Tian et al. 2020, https://arxiv.org/abs/1910.10699, eqs. 9-19."""

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
    anchor: Tensor, positive: Tensor, negatives: Tensor, counted: Tensor, scale: Tensor, temperature: float = 0.07
) -> Tensor:
    """-mean_i (log h(a_i, p_i) + sum_j log(1 - h(a_i, n_j))), h(a, b) = e / (e + N c), e = exp(a.b / T).

    h is the probability that a and b are two views of one image, rather than one of N pairs of strangers, of which
    c is the usual e. The sum is over the N negatives that count for anchor i.

    Args:
        anchor: [B, D] of length 1, embeddings by one network.
        positive: [B, D] of length 1, of the same images by the other.
        negatives: [M, D] of length 1, of other images by the other.
        counted: [B, M] bool, which negatives are strangers to which anchor.
        scale: scalar above 0, the c above.
        temperature: above 0.

    Returns:
        Scalar in nats, above 0, and about log N + 1 for embeddings that know nothing of each other.
    """
    if len(anchor) == 0:
        return anchor.sum()
    usual = (counted.sum(1, keepdim=True).clamp_min(1) * scale).log()  # 1: without negatives h is e / (e + c)
    same = (anchor * positive).sum(1, keepdim=True) / temperature - usual
    other = inner(anchor, negatives) / temperature - usual
    return -(F.logsigmoid(same).sum() + (F.logsigmoid(-other) * counted).sum()) / len(anchor)


class CRD(Method):
    """Contrastive representation distillation: each network's embedding finds the other's among a memory of others.

    Differs: the authors keep one row for every training image, and average it into the next with momentum 0.5. What is
    trained here is not counted beforehand, so the memory is a queue of the last `bank` embeddings of either network,
    with the class of each, without momentum. An image's partner is its embedding by the other network in this step, not
    the row of its last visit, and all rows of other classes are negatives instead of a draw from them. As theirs, the
    memory begins random, c is measured once, on the first batch, and a gradient reaches the anchors alone.

    Use: for classification with a teacher of any family: on CIFAR-100 the strongest feature loss of its authors'
    comparison (resnet32x4 to resnet8x4: 75.51, 73.33 with `hinton`; ResNet-50 to MobileNetV2: 69.11, 67.35), with
    `hinton` beside it. Labels that are no classes leave rows in doubt: any row then counts as a stranger, also an
    earlier look at the same image.

    Avoid: with a bank of many times the training set: its old rows are those of a student long gone. For two or three
    classes most of what it tells apart is told apart already.

    Args:
        dim: at least 1; width of the embeddings.
        bank: at least 1; rows of the memory, which is how many negatives there are, less those of the same class.
        temperature: above 0; smaller looks at the nearest negatives only.
        student_taps: one feature of the student; found where both are left out.
        teacher_taps: the teacher's, for comparison with it.

    Raises:
        ValueError: an argument is out of its range, or there is more than one tap of a side.
    """

    weight = 0.8
    reads = "vector"
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
        """Size the embeddings, and fill the memory with random directions of no class."""
        s, t = to_vector(student.taps[self.student_taps[0]]), to_vector(teacher.taps[self.teacher_taps[0]])
        self.student_embed = nn.Linear(s.shape[1], self.dim).to(s.device)
        self.teacher_embed = nn.Linear(t.shape[1], self.dim).to(s.device)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, unit(torch.randn(self.bank, self.dim, device=s.device)))
        self.register_buffer("classes", torch.full((self.bank,), -1, device=s.device))
        self.register_buffer("place", torch.tensor(0, device=s.device))  # of the row that is written next
        self.register_buffer("scales", torch.zeros(2, device=s.device))  # of student and teacher; 0 until measured

    def embeddings(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        """Both networks' vectors as [B, dim] of length 1, of this process's images."""
        s = self.student_embed(to_vector(student.taps[self.student_taps[0]]))
        t = self.teacher_embed(to_vector(teacher.taps[self.teacher_taps[0]]))
        return unit(at_least_float32(s)), unit(at_least_float32(t))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"nce": ...}`: `crd_loss` of the student among the teacher's rows, plus the same the other way round."""
        s, t = map(gather_rows, self.embeddings(student, teacher))
        y = gather_rows(_classes(batch).to(s.device))
        counted = (y[:, None] != self.classes) | (y[:, None] < 0)
        total = s.sum() * 0
        for side, (a, b, rows) in enumerate(((s, t, self.teacher_bank), (t, s, self.student_bank))):
            rows = rows.clone()  # the memory moves on before the backward pass
            scale = self._scale(side, a, rows, counted)
            total = total + crd_loss(a, b.detach(), rows, counted, scale, self.temperature)
        if self.training:
            self._remember(s, t, y)
        return {"nce": total}

    @torch.no_grad()
    def _scale(self, side: int, anchor: Tensor, rows: Tensor, counted: Tensor) -> Tensor:
        """The mean of exp(a.b / T) over strangers, of the first batch that had any."""
        likeness = (inner(anchor, rows) / self.temperature).exp() * counted
        measured = likeness.sum() / counted.sum().clamp_min(1)
        scale = torch.where(self.scales[side] > 0, self.scales[side], measured)
        if self.training:
            self.scales[side] = scale
        return torch.where(scale > 0, scale, 1.0)

    @torch.no_grad()
    def _remember(self, student: Tensor, teacher: Tensor, classes: Tensor) -> None:
        """Write over the oldest rows; of a batch larger than the memory, its end stays."""
        kept = slice(max(0, len(classes) - self.bank), None)
        rows = (self.place + torch.arange(len(classes), device=classes.device)[kept]) % self.bank
        self.student_bank[rows] = student[kept].to(self.student_bank.dtype)
        self.teacher_bank[rows] = teacher[kept].to(self.teacher_bank.dtype)
        self.classes[rows] = classes[kept]
        self.place.add_(len(classes)).remainder_(self.bank)


def _classes(batch: Batch) -> Tensor:
    """A class for each image [B], or -1 where the labels are none."""
    y = batch.target
    if isinstance(y, Tensor) and not y.is_floating_point() and y.numel() == len(batch):
        return y.flatten().long()
    return torch.full((len(batch),), -1)
