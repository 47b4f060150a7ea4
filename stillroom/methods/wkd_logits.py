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

    p = softmax(z) at temperature 1, y the true class; q = softmax(z / T) over the other classes. W is the
    `transport_cost` of the entropic plan from the student's q to the teacher's.

    Args:
        student: logits [M, K] or [B, K, ...], K at least 2.
        teacher: logits of the same shape.
        target: true classes, one for each row, 0..K-1.
        cost: [K, K] in 0..1: the cost of moving a unit of mass from class i to class j.
        gamma: weight of the second part.
        temperature: T, above 0, in units of logits; of the second part.
        reg: above max(cost) / 80, in units of cost; the weight of the plan's entropy.
        iterations: of Sinkhorn's algorithm, at least 1.

    Returns:
        Two scalars, each at least 0, the first in nats. For equal networks the second is small, but not 0, because of
        the entropy. With K = 2 it is always 0. Both are 0 without rows.
    """
    s, t = paired_rows(student, teacher)
    true = torch.arange(s.shape[1], device=s.device) == target.flatten()[:, None]
    log_q, log_p = ((z / temperature).masked_fill(true, -torch.inf).log_softmax(1) for z in (s, t))
    transport = mean_of_rows(transport_cost(log_q, log_p, cost, reg=reg, iterations=iterations))
    return target_loss(s, t, target), gamma * transport


def class_cost(covariance: Tensor, share: float | Tensor, kappa: float) -> Tensor:
    """1 - exp(-kappa (1 - share rho_ij)), [K, K] -> [K, K], rho the correlation of two classes' logits; 0 for i = j.

    The correlation with a class of constant logit is 0. With share 0 all classes are equally distant.
    """
    std = covariance.diagonal().clamp_min(0).sqrt()
    rho = covariance / (std[:, None] * std).clamp_min(1e-8)
    return (-torch.expm1(-kappa * (1 - share * rho))).fill_diagonal_(0)


class WKDLogits(Method):
    """Wasserstein distillation of logits: mass moved between similar classes costs less than between dissimilar ones.

    Differs: the authors compute the distance of two classes before training, as 1 - CKA of the teacher's outputs for
    their training images, or as 1 - cosine of the rows of its classifier. Here it is 1 - the correlation of the two
    classes' logits over all images so far (each image's logits minus their mean), which is that cosine weighted by the
    features' covariance, and needs neither a pass over the data nor the classifier. n images of K classes are weighted
    n / (n + K), so that all classes are equally distant at the beginning. Iterations run in the log domain until
    convergence (200 instead of 10), and the remaining mass is distributed: the authors' plans miss up to 4 % of the
    mass and can cost less than the optimum. They decrease gamma alone to 0 over the last 90 of 240 epochs; a recipe's
    `decay_start` also affects the true class's part.

    Use: for many classes, some of which are similar, and clean labels. With the authors' gamma and temperature for
    ImageNet, 30 and 2, or for CIFAR-100, 600 and 8.

    Avoid: with noisy labels or none; with three classes or fewer, where transport has little to distinguish; per pixel
    with many classes, because it takes K^2 operations per pixel 400 times.

    Args:
        gamma: at least 0; weight of the other classes' part.
        temperature: above 0; of the other classes' part.
        kappa: above 0; how quickly the cost rises with the distance of two classes.
        reg: at least 0.0125, in units of cost, which is below 1; the weight of the plan's entropy.
        iterations: at least 1.
        standardised: standardise both networks' logits first.

    Raises:
        ValueError: an argument is out of its range.
        LabelsNotClasses: SR-M332, in `loss`, when there is not one class label for each prediction.
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
        self._allocate(torch.zeros(0))

    def setup(self, student: Output, teacher: Output) -> None:
        """Allocate the classes' covariance, which is saved with the student, so that it survives a resume."""
        self._allocate(torch.zeros(teacher.pred.shape[1], device=teacher.pred.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"target": ..., "transport": ...}`, see `wkd_logits_loss`; in full precision.

        Before `setup`, or with another number of classes, all classes are equally distant.
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

    def _allocate(self, average: Tensor) -> None:
        self.register_buffer("average", average)
        self.register_buffer("covariance", average.new_zeros(len(average), len(average)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=average.device))

    @torch.no_grad()
    def _cost(self, teacher: Tensor) -> Tensor:
        """Costs between classes, after the images of this batch, of all processes, were added to the covariance."""
        if teacher.shape[1] != len(self.average):
            return class_cost(teacher.new_zeros(teacher.shape[1], teacher.shape[1]), 0.0, self.kappa)
        if self.training:
            self._count((teacher - teacher.mean(1, keepdim=True)).to(self.average.dtype))
        return class_cost(self.covariance, self._share(self.seen, self.seen + len(self.average)), self.kappa)

    def _count(self, rows: Tensor) -> None:
        """Merge the mean and covariance of these rows with those of all earlier ones. Chan et al. 1979."""
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
