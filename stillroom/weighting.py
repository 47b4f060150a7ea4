"""How much each loss counts: a weight, a schedule over the run, and, if asked for, equal say for every loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillroom.processes import total
from stillroom.types import Terms

EVERY = 20  # steps between two measurements of gradients
KEEP = 0.9  # share of the old measurement that stays


@dataclass(frozen=True)
class Weight:
    """What a loss is multiplied by.

        value x min(1, progress / warmup)                          climbing, while progress < warmup
              x (1 + cos(pi (progress - decay) / (1 - decay))) / 2  falling to 0, once progress > decay

    Attributes:
        value: at least 0.
        warmup: share of the run in which it climbs; 0 begins with all of it.
        decay: share of the run after which it falls; 1 never.
    """

    value: float
    warmup: float = 0.0
    decay: float = 1.0

    def at(self, progress: float) -> float:
        """The weight when `progress` of the run, 0..1, is done."""
        climbed = min(1.0, progress / self.warmup) if self.warmup else 1.0
        fallen = max(0.0, progress - self.decay) / (1 - self.decay) if self.decay < 1 else 0.0
        return self.value * climbed * 0.5 * (1 + math.cos(math.pi * fallen))


class Weighting(nn.Module):
    """The weights of all losses of a training, by label.

    Balanced, a weight says how long a loss's gradient on the student is beside that of the first label, mostly the
    task's: every 20 steps the lengths are measured, and their running means divide. The idea is GradNorm's (Chen et
    al. 2018, https://arxiv.org/abs/1711.02257), without its training rates and without its own optimiser: ratios of
    measured lengths need neither. What was measured is saved with the rest.

    Args:
        weights: label -> weight, in the order of the labels' importance.
        balanced: whether the gradients' lengths count.
    """

    lengths: Tensor
    calls: Tensor

    def __init__(self, weights: Mapping[str, Weight], *, balanced: bool = False):
        super().__init__()
        self.plans, self.balanced = dict(weights), balanced
        self.register_buffer("lengths", torch.ones(len(weights), dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def at(self, progress: float) -> dict[str, float]:
        """Label -> what its terms are multiplied by."""
        plain = {label: weight.at(progress) for label, weight in self.plans.items()}
        if not self.balanced:
            return plain
        reference, *_ = lengths = self.lengths.tolist()
        return {label: plain[label] * reference / length for label, length in zip(plain, lengths, strict=True)}

    def measure(self, terms: Terms, parameters: Sequence[Tensor]) -> None:
        """Take note of how long each label's gradient is, when it is time to. Leaves every `.grad` alone."""
        if not self.balanced or not torch.is_grad_enabled():
            return
        if self.calls % EVERY == 0:
            measured = torch.stack([_length(terms, label, parameters) for label in self.plans])
            usable = torch.where(measured.isfinite() & (measured > 0), measured, self.lengths)
            self.lengths.copy_(usable if self.calls == 0 else self.lengths.lerp(usable, 1 - KEEP))
        self.calls += 1


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
    whole = total(torch.cat([grad.flatten() for grad in grads]).double())
    return whole.norm() / (dist.get_world_size() if dist.is_initialized() else 1)
