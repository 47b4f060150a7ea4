"""Match how classes and images are ranked by likeness. Guo et al. 2024 (LUD), https://doi.org/10.1038/s41598-024-82647-6"""

from __future__ import annotations

from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._checks import above, at_least
from stillroom.methods._logits import both
from stillroom.methods._ranks import spearman
from stillroom.methods._relations import inner
from stillroom.methods._target import mean
from stillroom.methods._temperature import agreement, warmth
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def lud_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, lowest: float = 1.0, reg: float = 0.01
) -> tuple[Tensor, Tensor]:
    """(1 - mean rho(P_s^T P_s, P_t^T P_t), 1 - mean rho(P_s P_s^T, P_t P_t^T)), rho Spearman's, row by row.

    P = softmax(z / T) of the images that the teacher is sure of, one a row. The first matrix, K x K, says how often
    two classes are believed together (category relation); the second how alike two images are taken (sample
    relation). T of an image rises from `lowest` with the correlation of the two networks' logits.

    Args:
        student: logits [M, K] or [B, K, ...].
        teacher: logits of the same shape.
        temperature: the highest T, above 0, in units of logits.
        lowest: the lowest T, above 0.
        reg: the width of soft ranks, in units of likeness, which is 0..1; 0 takes whole ranks and has no gradient.

    Returns:
        Two scalars in 0..2; 0 when likenesses are ranked alike. No rows cost 0.
    """
    s, t = both(student, teacher)
    if not len(s):
        return s.sum(), s.sum()
    mask = confidence_mask(t)
    kept = mask | ~mask.any()
    s, t = s[kept], t[kept]
    heat = warmth(agreement(s, t), temperature, lowest)
    p, q = (s / heat).softmax(1), (t / heat).softmax(1)
    return (
        spearman_relation(inner(p.T, p.T) / len(p), inner(q.T, q.T) / len(q), reg),
        spearman_relation(inner(p, p), inner(q, q), reg),
    )


def confidence_mask(teacher: Tensor) -> Tensor:
    """1[max_k p_i(k) > median over rows i]: which rows of logits [M, K] the teacher is surer of than half, [M] bool.

    Exactly floor(M / 2) of them, if no two are equally sure.
    """
    sure = teacher.softmax(1).amax(1)
    return sure > sure.median()


def spearman_relation(student: Tensor, teacher: Tensor, reg: float) -> Tensor:
    """1 - mean over rows i of rho(student_i, teacher_i) of two matrices of likeness [n, n]; see `spearman` for reg.

    With reg = 0 unchanged when the student's or the teacher's matrix goes through any strictly increasing function.
    """
    return mean(1 - spearman(student, teacher, reg))


class LUD(Method):
    """Relations between classes and between images, from the half of the batch that the teacher is surest of.

    Differs: the equations come from a second-hand account, because neither the paper's body nor its code could be
    read. As given there, the correlation itself is added to the loss and would be made small: 1 - rho stands here. Both
    matrices are given by one formula; K x K and B x B is the reading that fits their names. Soft ranks stand for
    ranks, which have no gradient. Their matrix of classes is divided by the number of images, so that `reg` means the
    same for every batch. The mask drops images, as that account has it, before any matrix is made, so that nothing the
    teacher says of them counts; the abstract speaks of classes.
    Correlations below 0 count as 0 in the temperature, which fell below 0 as printed. The authors' weights and
    temperatures were not found; 1, 1 and 1..4 are ours. Where no image is surer than the median, all are kept.

    Use: for a teacher that is often unsure, or wrong where it is unsure, and a student far smaller than it. It needs no
    labels.

    Avoid: with fewer than some 16 images to a batch; for predictions per pixel, whose sample relation is a matrix of
    all pixels by all pixels.

    Args:
        category: at least 0; weight of the relation between classes.
        sample: at least 0; weight of the relation between images.
        temperature: above 0; the highest, which no row quite reaches (63 % of the way, where both rank alike).
        lowest: above 0, at most `temperature`.
        reg: above 0; the width of soft ranks, in units of likeness 0..1.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: an argument out of its range.
    """

    weight = 1.0
    output_kind = ("classes",)  # of pixels, the relation of all to all fills no memory that anybody has

    def __init__(
        self,
        *,
        category: float = 1.0,
        sample: float = 1.0,
        temperature: float = 4.0,
        lowest: float = 1.0,
        reg: float = 0.01,
        standardised: bool = False,
    ):
        super().__init__()
        at_least(0, category=category, sample=sample)
        above(0, temperature=temperature, lowest=lowest, reg=reg)
        if lowest > temperature:
            raise ValueError(f"lowest must be at most the temperature, {temperature}, got {lowest}")
        self.category, self.sample, self.temperature = category, sample, temperature
        self.lowest, self.reg, self.standardised = lowest, reg, standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"category": ..., "sample": ...}`, see `lud_loss`; of the images of all processes."""
        s, t = (gather_rows(z) for z in both(student.pred, teacher.pred, standardised=self.standardised))
        category, sample = lud_loss(s, t, temperature=self.temperature, lowest=self.lowest, reg=self.reg)
        return {"category": self.category * category, "sample": self.sample * sample}
