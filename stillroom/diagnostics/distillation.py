"""Whether distillation is really on: one real batch through both networks, and what was measured of it.

Most failures of distillation are silent: a tap on a layer that never runs, a loss divided by the number of classes, a
projector that no optimiser updates, a teacher whose classes are in another order. Each is measured here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stillroom.data.dataset import Split
from stillroom.data.loader import in_order
from stillroom.diagnostics.errors import NoGradient, TeacherNotFrozen, UnusedMethodParameters
from stillroom.evaluation.predict import predict
from stillroom.methods.method import Method
from stillroom.metrics.measurement import wilson
from stillroom.models.network import IMAGENET, Network
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.distiller import Distiller
from stillroom.training.loss_weights import gradient_length
from stillroom.training.pull import Term, measure_terms
from stillroom.training.state import State
from stillroom.types import Batch, Output

ZERO_PROBABILITY = -1e4  # a logit whose softmax is 0
NUM_IMAGES = 512  # of val, at most, on which a teacher's accuracy is measured

OTHER_PIXELS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "the mean and deviation of ImageNet": IMAGENET,
    "mean 0.5 and deviation 0.5": ((0.5,), (0.5,)),
    "pixels as they are": ((0.0,), (1.0,)),
}


def terms(distiller: Distiller, teacher: Output | None, batch: Batch) -> list[Term]:
    """Each loss and its gradient on the student, see `measure_terms`.

    Raises:
        NoGradient: SR-M331 a loss has no gradient on the student, or not a finite one.
    """
    found = measure_terms(distiller, teacher, batch)
    for term in found:
        if not 0 < term.gradient_norm < float("inf"):
            raise NoGradient(term=term.name, value=term.value, length=term.gradient_norm)
    return found


def check_frozen(teacher: FrozenTeacher, batch: Batch, output: Output) -> str:
    """That the teacher is frozen: in evaluation mode, without gradient, unchanged by a forward pass.

    Raises:
        TeacherNotFrozen: SR-T320 it is not.
    """
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    again = teacher((batch.images,), batch.keys, tuple(output.taps))
    faults = {
        "a part of it is in training mode": any(part.training for part in teacher.network.modules()),
        "its weights require gradients": any(p.requires_grad for p in teacher.network.parameters()),
        "its outputs carry gradients": output.pred.requires_grad,
        "its output differs the second time": not torch.allclose(again.pred, output.pred, atol=1e-4),
        "a forward pass changes it": any(
            not torch.equal(v, before[n]) for n, v in teacher.network.state_dict().items()
        ),
    }
    wrong = [fault for fault, found in faults.items() if found]
    if wrong:
        raise TeacherNotFrozen(problem="; ".join(wrong))
    return "in evaluation mode, without gradient, unchanged by a forward pass, with equal outputs the second time"


def check_parameters(distiller: Distiller, state: State, teacher: Output | None, batch: Batch) -> Iterator[str]:
    """That what methods train beside the student is in the optimiser, is clipped, and gets a gradient.

    Raises:
        UnusedMethodParameters: SR-T321 a parameter is never trained.
    """
    optimised = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    clipped = {id(p) for p in distiller.parameters()}
    loss = distiller.total(distiller(batch, teacher, 0.5), 0.5)
    for label, method in distiller.methods.items():
        parameters = dict(method.named_parameters())
        if not parameters:
            continue
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        unused = [
            name
            for (name, p), grad in zip(parameters.items(), grads, strict=True)
            if id(p) not in optimised or id(p) not in clipped or grad is None
        ]
        if unused:
            raise UnusedMethodParameters(method=label, parts=", ".join(unused))
        count = sum(p.numel() for p in parameters.values())
        yield f"{label}: {count:,} parameters of its own, in the optimiser, clipped with the student, with a gradient"


def conventions(label: str, method: Method, student: Output, teacher: Output, batch: Batch) -> str | None:
    """How a loss of predictions is reduced, measured: over images, over classes, and the effect of the temperature.

    None for methods that read features. 1 with the batch doubled means a mean over images; 1 with classes of
    probability 0 added, a sum over classes, not a mean; near 1 at twice the temperature, that T^2 is applied.
    Correlations and the like have other ratios by design.
    """
    if method.default_taps != "pred" or method.student_taps:
        return None
    value = _loss(method, student.pred, teacher.pred, batch)
    doubled = Batch(images=batch.images, target=torch.cat([batch.target] * 2), keys=batch.keys)
    twice = _loss(method, torch.cat([student.pred] * 2), torch.cat([teacher.pred] * 2), doubled)
    found = [f"x{twice / value:.2f} with the batch doubled (1: a mean over images)"]
    if not getattr(method, "standardised", False):  # a mean over logits depends on classes of probability 0
        wider = _loss(method, _widened(student.pred), _widened(teacher.pred), batch)
        found.append(f"x{wider / value:.2f} with classes of probability 0 added (1: summed over classes)")
    if isinstance(temperature := getattr(method, "temperature", None), float):
        ratio = _warmer(method, temperature, student, teacher, batch)
        found.append(f"gradient x{ratio:.2f} at T = {2 * temperature:g} for {temperature:g} (near 1: T^2 is applied)")
    return f"{label}: " + ", ".join(found)


def teacher_accuracy(teacher: FrozenTeacher, split: Split, classes: int) -> list[str]:
    """A finished teacher's accuracy on val images against chance; and whether it would be higher in another setting.

    A line says so if other pixel statistics, or another order of classes, make it significantly more accurate (disjoint
    95 % intervals). The order is fitted on one half of the images and tested on the other.
    """
    answers, labels = _answers(teacher, split)
    n, hits = len(labels), int((answers == labels).sum())
    low, high = wilson(hits, n)
    found = [f"right on {hits / n:.1%} of {n} val images, chance is {1 / classes:.1%}"]
    if low <= 1 / classes:
        found.append("SR-M302 that is no better than chance: are its classes in the data's order?")
    order, share = _best_order(answers, labels, classes)
    if wilson(round(share * (n // 2)), n // 2)[0] > high:
        found.append(f"SR-M313 with class_map = {order} it is right on {share:.1%}: its classes are in another order")
    for name, value in _other_pixels(teacher, split):
        if wilson(round(value * n), n)[0] > high:
            found.append(f"SR-M314 with {name} it is right on {value:.1%}: its pixels are normalised in another way")
    return found


def _loss(method: Method, student: Tensor, teacher: Tensor, batch: Batch) -> float:
    terms = method.loss(Output(pred=student.detach()), Output(pred=teacher), batch, 0.5)
    return float(torch.stack(list(terms.values())).sum())


def _widened(logits: Tensor) -> Tensor:
    return torch.cat([logits.detach(), torch.full_like(logits, ZERO_PROBABILITY)], 1)


def _warmer(method: Method, temperature: float, student: Output, teacher: Output, batch: Batch) -> float:
    """The norm of the gradient on the logits at twice the temperature, as a share of that at the temperature."""
    norms = []
    for value in (temperature, 2 * temperature):
        logits = student.pred.detach().requires_grad_()
        warm = type(method)(**_arguments(method) | {"temperature": value})
        terms = warm.loss(Output(pred=logits), teacher, batch, 0.5)
        norms.append(float(gradient_length(torch.stack(list(terms.values())).sum(), [logits])))
    return norms[1] / max(norms[0], 1e-12)


def _arguments(method: Method) -> dict[str, Any]:
    return {name: getattr(method, name) for name in inspect.signature(type(method)).parameters}


def _answers(teacher: FrozenTeacher, split: Split) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    answers, labels = [], []
    rows = np.arange(min(len(split), NUM_IMAGES))
    for batch, outputs in predict({"teacher": teacher.predict}, in_order(split, 64, rows=rows), "cpu"):
        answers.append(outputs["teacher"].pred.argmax(1))
        labels.append(batch.target)
    return torch.cat(answers).numpy(), torch.cat(labels).numpy()


def _best_order(answers: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], classes: int) -> tuple[list[int], float]:
    """For every class the output that predicts it most often, on one half; how often that is right on the other."""
    half = len(labels) // 2
    table = np.zeros((classes, classes))
    np.add.at(table, (labels[:half], answers[:half]), 1)
    order = linear_sum_assignment(-table)[1]
    return order.tolist(), float((order[labels[half : 2 * half]] == answers[half : 2 * half]).mean())


def _other_pixels(teacher: FrozenTeacher, split: Split) -> Iterator[tuple[str, float]]:
    """The teacher's accuracy if pixels were normalised in other common ways."""
    network = teacher.network
    if not isinstance(network, Network):
        return
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    try:
        for name, statistics in OTHER_PIXELS.items():
            network.set_pixel_statistics(*statistics)
            answers, labels = _answers(teacher, split)
            yield name, float((answers == labels).mean())
    finally:
        network.set_pixel_statistics(mean, std)
