"""One optimiser step: queued on the device, complete when its numbers have arrived from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.training.loss_weights import label_of


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step cost and how it went. Numbers only, ready to be a line of JSON."""

    step: int
    images: int  # of all processes together
    loss: float
    terms: dict[str, float]  # raw
    weights: dict[str, float]  # what they were multiplied by in this step
    grad_norm: float
    lr: float
    seconds: float
    wait: float  # of those, seconds that training waited for data
    skipped: bool  # the weights were left as they were


class Diverged(FloatingPointError):
    """Too many steps were not finite; `skipped` says which."""

    def __init__(self, step: Step, skipped: list[int]):
        self.step, self.skipped = step, skipped
        super().__init__(f"step {step.step}: not finite, gradient norm {step.grad_norm}, terms {step.terms}")


class AsyncScalars:
    """Numbers on their way from the device, which goes on working.

    Args:
        there: [N] on the device; not written to any more.
    """

    def __init__(self, there: Tensor):
        self._here = there.to("cpu", non_blocking=True)  # pinned memory, which is what lets the copy wait its turn
        self._sent = torch.cuda.Event() if there.is_cuda else None
        if self._sent:
            self._sent.record()

    def read(self) -> list[float]:
        """The numbers; waits for them."""
        if self._sent:
            self._sent.synchronize()
        return self._here.tolist()


@dataclass(kw_only=True)
class PendingStep:
    """A step that the device has been given.

    Attributes:
        step: its number, from 1.
        images: of all processes together.
        names: of the terms.
        numbers: the terms, the gradient's norm, and for each weight what balancing multiplies it by.
        weights: label -> weight before balancing.
        lr: the learning rate.
        wait: seconds that training waited for data.
        avoided: whether it was to be skipped whatever its numbers are.
        seconds: all it took.
    """

    step: int
    images: int
    names: Sequence[str]
    numbers: AsyncScalars
    weights: dict[str, float]
    lr: float
    wait: float
    avoided: bool
    seconds: float = 0.0

    def finished(self) -> Step:
        """The step as it went."""
        found, at = self.numbers.read(), len(self.names)
        terms = dict(zip(self.names, found[:at], strict=True))
        grad_norm, factors = found[at], dict(zip(self.weights, found[at + 1 :], strict=True))
        weights = {label: weight * factors[label] for label, weight in self.weights.items()}
        return Step(
            step=self.step,
            images=self.images,
            loss=sum(weights[label_of(name)] * value for name, value in terms.items()),
            terms=terms,
            weights=weights,
            grad_norm=grad_norm,
            lr=self.lr,
            seconds=self.seconds,
            wait=self.wait,
            skipped=self.avoided or not all(map(math.isfinite, found)),
        )
