"""Is distillation really on? One real batch through both networks, and what was measured of it.

Most failures of distillation are silent: a tap that hears nothing, a loss divided by the number of classes, a projector
that no optimiser knows, a teacher whose classes stand in another order. Each has a sign here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stillroom.data.dataset import Split
from stillroom.data.loader import in_order
from stillroom.diagnostics.errors import NoGradient, TeacherNotFrozen, UnusedMethodParameters
from stillroom.methods.method import Method
from stillroom.metrics.measurement import wilson
from stillroom.models.network import IMAGENET, Network
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.distiller import Distiller
from stillroom.training.loss_weights import gradient_length, label_of
from stillroom.training.state import State
from stillroom.types import Batch, Output

NOBODY = -1e4  # a logit that no softmax believes in
JUDGED = 512  # val images that a teacher's knowledge is measured on

OTHER_PIXELS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "the mean and deviation of ImageNet": IMAGENET,
    "mean 0.5 and deviation 0.5": ((0.5,), (0.5,)),
    "pixels as they are": ((0.0,), (1.0,)),
}


@dataclass(frozen=True)
class Term:
    """One loss on one batch: its raw value, its weight at the end of its warm-up, its gradient on the student."""

    name: str
    value: float
    weight: float
    pull: float

    def __str__(self) -> str:
        said = f"{self.name} = {self.value:.4f}, times {self.weight:g}"
        return f"{said}; its gradient on the student is {self.pull:.3g} long"


def terms(learner: Distiller, heard: Output | None, batch: Batch) -> list[Term]:
    """Each loss and what it does to the student, half-way through the run, where warm-ups are over.

    Raises:
        NoGradient: SR-M331 a loss does not reach the student.
    """
    student, weights, found = list(learner.student.parameters()), learner.weights(0.5), []
    for name, value in learner(batch, heard, 0.5).items():
        pull = float(gradient_length(value, student))
        if not 0 < pull < float("inf"):
            raise NoGradient(term=name, value=value.item(), length=pull)
        found.append(Term(name, value.item(), weights[label_of(name)], pull))
    return found


def teacher(frozen: FrozenTeacher, batch: Batch, heard: Output) -> str:
    """That the teacher is a teacher: in inference mode, without gradient, the same after it has spoken.

    Raises:
        TeacherNotFrozen: SR-T320 it is not.
    """
    before = {name: value.clone() for name, value in frozen.network.state_dict().items()}
    again = frozen((batch.images,), batch.keys, tuple(heard.taps))
    faults = {
        "a part of it is in training mode": any(part.training for part in frozen.network.modules()),
        "its weights ask for gradients": any(p.requires_grad for p in frozen.network.parameters()),
        "what it says carries gradients": heard.pred.requires_grad,
        "it says something else the second time": not torch.allclose(again.pred, heard.pred, atol=1e-4),
        "speaking changes it": any(not torch.equal(v, before[n]) for n, v in frozen.network.state_dict().items()),
    }
    wrong = [fault for fault, found in faults.items() if found]
    if wrong:
        raise TeacherNotFrozen(problem="; ".join(wrong))
    return "in inference mode, without gradient; it says the same twice, and speaking leaves it as it was"


def own_parts(learner: Distiller, state: State, heard: Output | None, batch: Batch) -> Iterator[str]:
    """What methods learn beside the student: whether the optimiser and the clipping know it, and a step moves it.

    Raises:
        UnusedMethodParameters: SR-T321 a part is never trained.
    """
    known = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    clipped = {id(p) for p in learner.parameters()}
    loss = learner.total(learner(batch, heard, 0.5), 0.5)
    for label, method in learner.methods.items():
        parts = dict(method.named_parameters())
        if not parts:
            continue
        grads = torch.autograd.grad(loss, list(parts.values()), retain_graph=True, allow_unused=True)
        still = [
            name
            for (name, p), grad in zip(parts.items(), grads, strict=True)
            if id(p) not in known or id(p) not in clipped or grad is None
        ]
        if still:
            raise UnusedMethodParameters(method=label, parts=", ".join(still))
        count = sum(p.numel() for p in parts.values())
        yield f"{label}: {count:,} weights of its own, in the optimiser, clipped with the student, reached by the loss"


def conventions(label: str, method: Method, student: Output, heard: Output, batch: Batch) -> str | None:
    """How a loss of predictions counts, measured: over images, over classes, and what the temperature does to it.

    None for methods that read features. 1 with the batch doubled means a mean over images; 1 with classes that nobody
    believes in, that classes are summed, not averaged; near 1 at twice the temperature, that T^2 is not forgotten.
    Correlations and the like have other figures by right.
    """
    if method.default_taps != "pred" or method.student_taps:
        return None
    value = _charge(method, student.pred, heard.pred, batch)
    doubled = Batch(images=batch.images, target=torch.cat([batch.target] * 2), keys=batch.keys)
    twice = _charge(method, torch.cat([student.pred] * 2), torch.cat([heard.pred] * 2), doubled)
    said = [f"x{twice / value:.2f} with the batch doubled (1: a mean over images)"]
    if not getattr(method, "standardised", False):  # a mean over logits hears what no softmax believes
        wider = _charge(method, _widened(student.pred), _widened(heard.pred), batch)
        said.append(f"x{wider / value:.2f} with classes added that nobody believes in (1: summed over classes)")
    if isinstance(temperature := getattr(method, "temperature", None), float):
        ratio = _warmer(method, temperature, student, heard, batch)
        said.append(f"gradient x{ratio:.2f} at T = {2 * temperature:g} for {temperature:g} (near 1: T^2 is kept)")
    return f"{label}: " + ", ".join(said)


def knowledge(frozen: FrozenTeacher, split: Split, classes: int) -> list[str]:
    """What a finished teacher knows of the val images, against chance; and whether it would know more otherwise.

    If other pixel statistics, or another order of classes, make it right significantly more often (disjoint 95 %
    intervals), the line says so. The order is looked for on one half of the images and judged on the other.
    """
    answers, labels = _answers(frozen, split)
    n, hits = len(labels), int((answers == labels).sum())
    low, high = wilson(hits, n)
    said = [f"right on {hits / n:.1%} of {n} val images, chance is {1 / classes:.1%}"]
    if low <= 1 / classes:
        said.append("SR-M302 that is no better than chance: are its classes in the data's order?")
    order, share = _best_order(answers, labels, classes)
    if wilson(round(share * (n // 2)), n // 2)[0] > high:
        said.append(f"SR-M313 with map = {order} it is right on {share:.1%}: its classes stand in another order")
    for name, found in _other_pixels(frozen, split):
        if wilson(round(found * n), n)[0] > high:
            said.append(f"SR-M314 with {name} it is right on {found:.1%}: its pixels are normalised in another way")
    return said


def _charge(method: Method, student: Tensor, teacher: Tensor, batch: Batch) -> float:
    charged = method.loss(Output(pred=student.detach()), Output(pred=teacher), batch, 0.5)
    return float(torch.stack(list(charged.values())).sum())


def _widened(logits: Tensor) -> Tensor:
    return torch.cat([logits.detach(), torch.full_like(logits, NOBODY)], 1)


def _warmer(method: Method, temperature: float, student: Output, heard: Output, batch: Batch) -> float:
    """The length of the gradient on the logits at twice the temperature, as a share of that at the temperature."""
    lengths = []
    for now in (temperature, 2 * temperature):
        logits = student.pred.detach().requires_grad_()
        warm = type(method)(**_arguments(method) | {"temperature": now})
        charged = warm.loss(Output(pred=logits), heard, batch, 0.5)
        lengths.append(float(gradient_length(torch.stack(list(charged.values())).sum(), [logits])))
    return lengths[1] / max(lengths[0], 1e-12)


def _arguments(method: Method) -> dict[str, Any]:
    return {name: getattr(method, name) for name in inspect.signature(type(method)).parameters}


@torch.no_grad()
def _answers(frozen: FrozenTeacher, split: Split) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    answers, labels = [], []
    for batch in in_order(split, 64):
        answers.append(frozen.speak(batch.images).pred.argmax(1))
        labels.append(batch.target)
        if sum(map(len, labels)) >= JUDGED:
            break
    return torch.cat(answers).numpy(), torch.cat(labels).numpy()


def _best_order(answers: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], classes: int) -> tuple[list[int], float]:
    """For every class the answer that means it most often, found on one half; how often that is right on the other."""
    half = len(labels) // 2
    table = np.zeros((classes, classes))
    np.add.at(table, (labels[:half], answers[:half]), 1)
    order = linear_sum_assignment(-table)[1]
    return order.tolist(), float((order[labels[half : 2 * half]] == answers[half : 2 * half]).mean())


def _other_pixels(frozen: FrozenTeacher, split: Split) -> Iterator[tuple[str, float]]:
    """How often the teacher would be right if its pixels were normalised in other common ways."""
    network = frozen.network
    if not isinstance(network, Network):
        return
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    try:
        for name, statistics in OTHER_PIXELS.items():
            network.normalise(*statistics)
            answers, labels = _answers(frozen, split)
            yield name, float((answers == labels).mean())
    finally:
        network.normalise(mean, std)
