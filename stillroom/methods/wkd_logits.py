"""Optimal transport between wrong classes. Lv et al. 2024 (WKD-L), https://arxiv.org/abs/2412.08139, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.methods._checks import above, at_least
from stillroom.methods._logits import labelled_rows, paired_rows
from stillroom.methods._target import mean_of_rows, target_loss
from stillroom.methods._transport import transport_cost
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def wkd_logits_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    cost: Tensor,
    *,
    gamma: float,
    temperature: float,
    reg: float = 0.05,
    iterations: int = 200,
) -> tuple[Tensor, Tensor]:
    """(-p_t(y) log p_s(y), gamma W(q_s, q_t)), means over rows; their sum is the paper's loss.

    p = softmax(z) at temperature 1, y the true class; q = softmax(z / T) over the other classes. W is the price of the
    entropic plan that moves the student's q to the teacher's, `transport_cost`.

    Args:
        student: logits [M, K] or [B, K, ...], K at least 2.
        teacher: logits of the same shape.
        target: true classes, one for each row, 0..K-1.
        cost: [K, K] in 0..1: the price of moving all mass from class i to class j.
        gamma: weight of the second part.
        temperature: above 0, in units of logits; of the second part.
        reg: above max(cost) / 80, in units of cost; how much the plan is smeared.
        iterations: of Sinkhorn's algorithm, at least 1.

    Returns:
        Two scalars, the first in nats; each at least 0. The second is small, not 0, at equality: plans are smeared.
        With K = 2 it is always 0. No rows cost 0.
    """
    s, t = paired_rows(student, teacher)
    true = torch.arange(s.shape[1], device=s.device) == target.flatten()[:, None]
    log_q, log_p = ((z / temperature).masked_fill(true, -torch.inf).log_softmax(1) for z in (s, t))
    moved = mean_of_rows(transport_cost(log_q, log_p, cost, reg=reg, iterations=iterations))
    return target_loss(s, t, target), gamma * moved


def class_cost(covariance: Tensor, share: float | Tensor, kappa: float) -> Tensor:
    """1 - exp(-kappa (1 - share rho_ij)), rho the correlation of two classes' logits; 0 for i = j. [K, K] -> [K, K].

    A class whose logit never changes correlates with nothing. Share 0 makes all classes equally far.
    """
    std = covariance.diagonal().clamp_min(0).sqrt()
    rho = covariance / (std[:, None] * std).clamp_min(1e-8)
    return (-torch.expm1(-kappa * (1 - share * rho))).fill_diagonal_(0)


class WKDLogits(Method):
    """Wasserstein distillation of logits: confusing near classes costs less than confusing far ones.

    Differs: the authors measure how far two classes are before the training, as 1 - CKA of the clouds of the teacher's
    outputs for them on the training set, or as 1 - cosine of the rows of its classifier. Here it is 1 - the
    correlation of the two classes' logits over all images seen so far (each image's logits less their mean), which is
    that cosine weighted with the features' covariance, and needs neither a pass over the data nor the classifier. n
    images of K classes count n / (n + K), so that a run begins with all classes equally far. Iterations are done in
    logarithms until they converge (200 instead of 10), and what is then missing is moved: the authors' plans miss up
    to 4 % of the mass and can cost less than possible. They let gamma alone fall to 0 over the last 90 of 240 epochs;
    a recipe's `decay` takes the true class's part along.

    Use: for many classes, some of them much alike, and clean labels. With the authors' gamma and temperature for
    ImageNet, 30 and 2, or for CIFAR-100, 600 and 8.

    Avoid: with noisy labels or none; with three classes or fewer, where there is next to nothing to move; per pixel
    with many classes, where it takes K^2 operations a pixel 400 times.

    Args:
        gamma: at least 0; weight of the other classes' part.
        temperature: above 0; of the other classes' part.
        kappa: above 0; how quickly classes become far.
        reg: at least 0.0125, in units of cost, which is below 1; how much the plan is smeared.
        iterations: at least 1.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: an argument out of its range.
        LabelsNotClasses: SR-M332, in `loss`, when the labels are not one class for each prediction.
    """

    weight = 1.0
    needs_labels = True
    covariance: Tensor
    average: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        gamma: float = 600.0,
        temperature: float = 8.0,
        kappa: float = 1.0,
        reg: float = 0.05,
        iterations: int = 200,
        standardised: bool = False,
    ):
        super().__init__()
        above(0, temperature=temperature, kappa=kappa)
        at_least(0, gamma=gamma)
        at_least(0.0125, reg=reg)
        at_least(1, iterations=iterations)
        self.gamma, self.temperature, self.kappa = gamma, temperature, kappa
        self.reg, self.iterations, self.standardised = reg, iterations, standardised
        self._remember(torch.zeros(0))

    def setup(self, student: Output, teacher: Output) -> None:
        """Make room for the classes' covariance, which is saved with the student and stays right over a resume."""
        self._remember(torch.zeros(teacher.pred.shape[1], device=teacher.pred.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"target": ..., "transport": ...}`, see `wkd_logits_loss`; at full precision.

        Before `setup`, or for another number of classes than it saw, all classes are equally far.
        """
        s, t = paired_rows(student.pred, teacher.pred, standardised=self.standardised)
        with torch.autocast(s.device.type, enabled=False):
            cost = self._cost(t).to(s.dtype)
            target, transport = wkd_logits_loss(
                *labelled_rows(batch, s, t),
                cost,
                gamma=self.gamma,
                temperature=self.temperature,
                reg=self.reg,
                iterations=self.iterations,
            )
        return {"target": target, "transport": transport} if s.shape[1] > 2 else {"target": target}

    def _remember(self, average: Tensor) -> None:
        self.register_buffer("average", average)
        self.register_buffer("covariance", average.new_zeros(len(average), len(average)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=average.device))

    @torch.no_grad()
    def _cost(self, teacher: Tensor) -> Tensor:
        """What moving between classes costs, after this batch's images, of all processes, have been counted."""
        if teacher.shape[1] != len(self.average):
            return class_cost(teacher.new_zeros(teacher.shape[1], teacher.shape[1]), 0.0, self.kappa)
        if self.training:
            self._count((teacher - teacher.mean(1, keepdim=True)).to(self.average.dtype))
        return class_cost(self.covariance, self._share(self.seen, self.seen + len(self.average)), self.kappa)

    def _count(self, rows: Tensor) -> None:
        """Merge the mean and covariance of these rows into those of all before. Chan et al. 1979."""
        images = all_reduce_sum(self.seen.new_tensor(len(rows))).clamp_min(1)
        average = all_reduce_sum(rows.sum(0)) / images
        covariance = all_reduce_sum((rows - average).T @ (rows - average)) / images
        self.seen += images
        part = self._share(images, self.seen)
        step = average - self.average
        self.average += part * step
        self.covariance += part * (covariance - self.covariance) + part * (1 - part) * torch.outer(step, step)

    def _share(self, part: Tensor, whole: Tensor) -> Tensor:
        return part.to(self.average.dtype) / whole
