"""Match correlations of probabilities. Huang et al. 2022 (DIST), https://arxiv.org/abs/2205.10536, section 4."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from stillroom.distributed.collectives import gather_rows
from stillroom.methods._checks import above, at_least, one_of
from stillroom.methods._logits import paired_rows
from stillroom.methods._ranks import pearson, spearman
from stillroom.methods._target import mean_of_rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

Correlation = Literal["pearson", "spearman", "pearson+spearman"]
"""How two rows are compared: by value, by rank, or by the mean of both."""


def dist_loss(student: Tensor, teacher: Tensor, *, correlation: Correlation = "pearson", reg: float = 0.01) -> Tensor:
    """1 - mean over rows i of rho(student_i, teacher_i), rho a correlation.

    For probabilities [M, K] it is the paper's inter-class loss, over the classes of an image. For their transpose it is
    the intra-class loss, over the images of a class.

    Args:
        student: [M, n].
        teacher: [M, n].
        correlation: Pearson's, Spearman's or their mean.
        reg: above 0, in units of the entries; the width of soft ranks, see `soft_rank`.

    Returns:
        Scalar in 0..2; 0 when each row of the student is a x + b, a > 0, of the teacher's row x (for ranks: when soft
        ranks are equal). A row of equal numbers counts 1. 0 without rows.
    """
    rho = [
        pearson(student, teacher) if kind == "pearson" else spearman(student, teacher, reg)
        for kind in correlation.split("+")
    ]
    return mean_of_rows(1 - sum(rho[1:], start=rho[0]) / len(rho))


class DIST(Method):
    """Correlation of the two networks' probabilities, over the classes of an image and over the images of a class.

    Differs: the guard against 0 / 0 only changes rows whose norms have a product below 1e-8; the authors add it to all.
    The rank correlations are the simple form of CMKD (Niu et al. 2024, https://arxiv.org/abs/2410.06561), with soft
    ranks and equal weights; theirs depend on each image's difficulty.

    Use: for a strong teacher, a large difference in size or a modern training recipe, where matching values lowers the
    accuracy (MobileNetV2 on ImageNet: 73.6 without a teacher, 71.7 with `hinton`, 74.4 with this). It needs no labels.

    Avoid: with batches of a few images, over which the intra-class correlation is not meaningful; rank correlations
    over the pixels of whole batches are slow.

    Args:
        beta: at least 0; weight of the inter-class part.
        gamma: at least 0; weight of the intra-class part.
        temperature: above 0; both parts are multiplied by its square, as in the authors' code.
        correlation: pearson, spearman or pearson+spearman.
        reg: above 0, in units of probability; the width of soft ranks. Pearson's correlation does not use it.
        standardised: standardise both networks' logits first, as CMKD does.

    Raises:
        ValueError: an argument is out of its range.
    """

    weight = 1.0

    def __init__(
        self,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        correlation: Correlation = "pearson",
        reg: float = 0.01,
        standardised: bool = False,
    ):
        super().__init__()
        at_least(0, beta=beta, gamma=gamma)
        above(0, temperature=temperature, reg=reg)
        one_of(Correlation, correlation=correlation)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature
        self.correlation, self.reg, self.standardised = correlation, reg, standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"inter": ..., "intra": ...}`: beta and gamma times T^2 `dist_loss` of the probabilities, by row and column.

        Correlations over images use the images of all processes.
        """
        s, t = (
            (z / self.temperature).softmax(1)
            for z in paired_rows(student.pred, teacher.pred, standardised=self.standardised)
        )
        inter = dist_loss(s, t, correlation=self.correlation, reg=self.reg)
        intra = dist_loss(gather_rows(s).T, gather_rows(t).T, correlation=self.correlation, reg=self.reg)
        square = self.temperature**2
        return {"inter": self.beta * square * inter, "intra": self.gamma * square * intra}
