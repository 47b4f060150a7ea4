"""How hard each loss pulls at the student beside the labels' loss, measured on one batch before training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from stillroom.errors import StillroomError
from stillroom.training.distiller import Distiller
from stillroom.training.errors import DominantLoss, WeakLoss
from stillroom.training.loss_weights import gradient_length, label_of
from stillroom.types import Batch, Output

WEAKEST, STRONGEST = 1e-3, 20.0
"""Weighted gradient of a method as a multiple of that of the labels. Outside of it one of both hardly counts."""

DEAD = 1e-6
"""The same of one term of several: below it the term is constant, as correlations of two classes are."""


@dataclass(frozen=True)
class Term:
    """One loss on one batch.

    Attributes:
        name: `label/term`.
        value: raw.
        weight: at half of the run, balanced where the recipe balances gradients.
        gradient_norm: of the raw term, over all weights of the student.
    """

    name: str
    value: float
    weight: float
    gradient_norm: float

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.4f}, weight {self.weight:g}, gradient norm {self.gradient_norm:.3g}"


def measure_terms(distiller: Distiller, teacher: Output | None, batch: Batch) -> list[Term]:
    """Each loss and its gradient on the student, half-way through the run, when warm-ups are over.

    Works on a copy, and leaves the random numbers as they were: training begins as if nothing had been measured.
    """
    devices = {p.device for p in distiller.parameters() if p.is_cuda}
    with torch.random.fork_rng(list(devices)):
        one = copy.deepcopy(distiller).train()
        student, values = [p for p in one.student.parameters() if p.requires_grad], one(batch, teacher, 0.5)
        one.total(values, 0.5, measure=True)  # balanced weights follow from measured gradients
        weights = one.weights(0.5)
        return [
            Term(name, value.item(), weights[label_of(name)], _norm(value, student)) for name, value in values.items()
        ]


def findings(terms: Sequence[Term]) -> Iterator[StillroomError]:
    """A method whose weighted gradient is below 1/1000 or above 20 times that of the labels."""
    pull: dict[str, float] = {}
    for term in terms:
        pull[label_of(term.name)] = pull.get(label_of(term.name), 0.0) + term.weight * term.gradient_norm
    labels = pull.pop("task", 0.0)
    for method, length in pull.items() if labels else ():
        if length < WEAKEST * labels:
            yield WeakLoss(method=method, ratio=length / labels, least=WEAKEST)
        elif length > STRONGEST * labels:
            yield DominantLoss(method=method, ratio=length / labels, most=STRONGEST)
        for term in terms if length >= WEAKEST * labels else ():
            if label_of(term.name) == method and term.weight and term.gradient_norm * term.weight < DEAD * labels:
                yield WeakLoss(method=term.name, ratio=term.weight * term.gradient_norm / labels, least=DEAD)


def _norm(value: torch.Tensor, student: Sequence[torch.Tensor]) -> float:
    return float(gradient_length(value, student)) if value.requires_grad else 0.0
