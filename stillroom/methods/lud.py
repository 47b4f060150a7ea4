"""Match rankings of similarities of classes and images. Guo et al. 2024, https://doi.org/10.1038/s41598-024-82647-6"""

from __future__ import annotations

from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._checks import above, at_least
from stillroom.methods._logits import paired_rows
from stillroom.methods._ranks import spearman
from stillroom.methods._relations import inner
from stillroom.methods._target import mean_of_rows
from stillroom.methods._temperature import correlation_temperature, rank_correlation
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def lud_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, lowest: float = 1.0, reg: float = 0.01
) -> tuple[Tensor, Tensor]:
    """(1 - mean rho(P_s^T P_s, P_t^T P_t), 1 - mean rho(P_s P_s^T, P_t P_t^T)), rho Spearman's correlation of each row.

    P = softmax(z / T), one row for each image of which the teacher is confident. The first matrix, K x K, holds how
    often two classes are predicted together (category relation); the second how similar two images are (sample
    relation). T of an image rises from `lowest` with the rank correlation of the two networks' logits.

    Args:
        student: logits [M, K] or [B, K, ...].
        teacher: logits of the same shape.
        temperature: the highest T, above 0, in units of logits.
        lowest: the lowest T, above 0.
        reg: the width of soft ranks, in units of similarity, which is in 0..1; 0 uses integer ranks and has no
            gradient.

    Returns:
        Two scalars in 0..2; 0 for equal rankings, and without rows.
    """
    s, t = paired_rows(student, teacher)
    if not len(s):
        return s.sum(), s.sum()
    mask = confidence_mask(t)
    used = mask | ~mask.any()
    s, t = s[used], t[used]
    row_temperature = correlation_temperature(rank_correlation(s, t), temperature, lowest)
    p, q = (s / row_temperature).softmax(1), (t / row_temperature).softmax(1)
    return (
        spearman_relation(inner(p.T, p.T) / len(p), inner(q.T, q.T) / len(q), reg),
        spearman_relation(inner(p, p), inner(q, q), reg),
    )


def confidence_mask(teacher: Tensor) -> Tensor:
    """Rows i with max_k p_i(k) > median over the rows, for logits [M, K]: [M] bool.

    Exactly floor(M / 2) of them, if no two maxima are equal.
    """
    confidence = teacher.softmax(1).amax(1)
    return confidence > confidence.median()


def spearman_relation(student: Tensor, teacher: Tensor, reg: float) -> Tensor:
    """1 - mean over rows i of rho(student_i, teacher_i) of two similarity matrices [n, n]; for reg see `spearman`.

    With reg = 0 unchanged under any strictly increasing function of the student's or the teacher's matrix.
    """
    return mean_of_rows(1 - spearman(student, teacher, reg))


class LUD(Method):
    """Relations between classes and between images, over the half of the batch on which the teacher is most confident.

    Differs: the equations come from a secondary source, because neither the full paper nor its code was accessible. As
    given there, the correlation itself would be minimised; here it is 1 - rho. Both matrices are given by one formula;
    K x K and B x B is the reading that fits their names. Soft ranks replace ranks, which have no gradient. The matrix
    of classes is divided by the number of images, so that `reg` does not depend on the batch size. The mask drops
    images before the matrices are computed, as in that source; the abstract mentions classes. Correlations below 0
    count as 0 in the temperature, which would be below 0 otherwise. The authors' weights and temperatures were not
    found; 1, 1 and 1..4 are ours. Where no confidence is above the median, all images are used.

    Use: for a teacher that is often unsure, or wrong where it is unsure, and a much smaller student. It needs no
    labels.

    Avoid: with fewer than about 16 images per batch; for predictions per pixel, whose sample relation is a matrix of
    all pixels by all pixels.

    Args:
        category: at least 0; weight of the relation between classes.
        sample: at least 0; weight of the relation between images.
        temperature: above 0; the highest, which is approached but not reached (63 % of the range at correlation 1).
        lowest: above 0, at most `temperature`.
        reg: above 0; the width of soft ranks, in units of similarity 0..1.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: an argument is out of its range.
    """

    weight = 1.0
    output_kinds = ("classes",)  # not "pixels": the matrix of all pixels by all pixels would not fit into memory

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
        """`{"category": ..., "sample": ...}`: `lud_loss` over the images of all processes."""
        s, t = (gather_rows(z) for z in paired_rows(student.pred, teacher.pred, standardised=self.standardised))
        category, sample = lud_loss(s, t, temperature=self.temperature, lowest=self.lowest, reg=self.reg)
        return {"category": self.category * category, "sample": self.sample * sample}
