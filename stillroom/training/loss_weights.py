"""Loss weights: a number, a schedule over the run, and optionally a balance of gradient norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillroom.distributed.collectives import all_reduce_sum
from stillroom.types import Terms

EVERY = 20  # steps between two measurements of gradients
KEEP = 0.9  # share of the old measurement that stays


@dataclass(frozen=True)
class Weight:
    """What a loss is multiplied by.

        value x min(1, progress / warmup)                          climbing, while progress < warmup
              x (1 + cos(pi (progress - start) / (1 - start))) / 2  falling to 0, once progress > start

    Attributes:
        value: at least 0.
        warmup_fraction: of the run, in which it climbs; 0 begins with all of it.
        decay_start: share of the run after which it falls; 1 never.
    """

    value: float
    warmup_fraction: float = 0.0
    decay_start: float = 1.0

    def at(self, progress: float) -> float:
        """The weight when `progress` of the run, 0..1, is done."""
        climbed = min(1.0, progress / self.warmup_fraction) if self.warmup_fraction else 1.0
        fallen = max(0.0, progress - self.decay_start) / (1 - self.decay_start) if self.decay_start < 1 else 0.0
        return self.value * climbed * 0.5 * (1 + math.cos(math.pi * fallen))


class LossBalancer(nn.Module):
    """The weights of all losses of a training, by label.

    Balanced, a weight says how long a loss's gradient on the student is beside that of the first label, mostly the
    task's: every 20 steps the lengths are measured, and their running means divide. The idea is GradNorm's (Chen et
    al. 2018, https://arxiv.org/abs/1711.02257), without its training rates and without its own optimiser: ratios of
    measured lengths need neither. What was measured is saved with the rest, and stays on the device.

    Args:
        weights: label -> weight, in the order of the labels' importance.
        balanced: whether the gradients' lengths count.
    """

    lengths: Tensor

    def __init__(self, weights: Mapping[str, Weight], *, balanced: bool = False):
        super().__init__()
        self.plans, self.balanced = dict(weights), balanced
        self.register_buffer("lengths", torch.zeros(len(weights), dtype=torch.float64))  # 0: not measured yet

    def at(self, progress: float) -> dict[str, float]:
        """Label -> what its terms are multiplied by. Waits for the device."""
        plain, factors = self.plain(progress), self.factors().tolist()
        return {label: plain[label] * factor for label, factor in zip(plain, factors, strict=True)}

    def plain(self, progress: float) -> dict[str, float]:
        """Label -> its weight before balancing."""
        return {label: weight.at(progress) for label, weight in self.plans.items()}

    def factors(self) -> Tensor:
        """[labels] what balancing multiplies each weight by; a length that is not known counts as 1."""
        if not self.balanced:
            return torch.ones_like(self.lengths)
        lengths = torch.where(self.lengths > 0, self.lengths, 1.0)
        return lengths[0] / lengths

    def total(self, terms: Terms, progress: float) -> Tensor:
        """The sum of weight x term."""
        plain = self.plain(progress)
        charged = torch.stack([plain[label_of(name)] * value for name, value in terms.items()])
        if self.balanced:
            factors = dict(zip(self.plans, self.factors().to(charged.dtype), strict=True))
            charged = charged * torch.stack([factors[label_of(name)] for name in terms])
        return charged.sum()

    def measure(self, terms: Terms, parameters: Sequence[Tensor]) -> None:
        """Take note of how long each label's gradient is. Leaves every `.grad` alone."""
        if not self.balanced:
            return
        measured = torch.stack([_length(terms, label, parameters) for label in self.plans])
        mean = torch.where(self.lengths > 0, self.lengths.lerp(measured, 1 - KEEP), measured)
        self.lengths.copy_(torch.where(measured.isfinite() & (measured > 0), mean, self.lengths))


def label_of(term: str) -> str:
    """`hinton` for `hinton/kl`."""
    return term.partition("/")[0]


def _length(terms: Terms, label: str, parameters: Sequence[Tensor]) -> Tensor:
    """The norm of the gradient of the label's raw terms over the images of all processes, 0 where it has none."""
    own = [value for name, value in terms.items() if label_of(name) == label and value.requires_grad]
    if not own:
        return torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    return gradient_length(torch.stack(own).sum(), parameters)


def gradient_length(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The norm of the gradient of a loss over the images of all processes; its graph is kept, and every `.grad`."""
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    whole = all_reduce_sum(torch.cat([grad.flatten() for grad in grads]).double())
    return whole.norm() / (dist.get_world_size() if dist.is_initialized() else 1)
