"""What of a training has to survive an interruption, and nothing that can be computed from the step's number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillroom.config.schema import Training
from stillroom.io.checkpoint import Parts
from stillroom.training.distiller import Distiller

PLAIN = ("step", "lr_scale", "restores", "skipped", "avoid", "best_score", "best_step")


@dataclass
class State:
    """One `parts()` and one `scalars()` hold all of it."""

    learner: Distiller
    trained: list[nn.Parameter]  # all that the optimiser moves
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: nn.Module  # the student's running average: what is evaluated and kept
    step: int = 0
    lr_scale: float = 1.0  # halved by every restore
    restores: int = 0  # how often training went back to a checkpoint because numbers were not finite
    skipped: list[int] = field(default_factory=list)  # steps that were not finite
    avoid: list[int] = field(default_factory=list)  # steps to pass over, since a restore
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best evaluation on val
    best_score: float = -1.0
    best_step: int = 0

    @classmethod
    def fresh(cls, learner: Distiller, config: Training, *, scaled: bool) -> State:
        """At step 0. `scaled` multiplies losses so that float16 gradients do not vanish."""
        learner.to(memory_format=torch.channels_last)  # first, so that average and moments lie in memory as weights do
        trained = [p for p in learner.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
        ]
        return cls(
            learner=learner,
            trained=trained,
            optimizer=OPTIMIZERS[config.optimizer](groups, config.lr),
            scaler=torch.amp.GradScaler(trained[0].device.type, enabled=scaled),
            average=copy.deepcopy(learner.student).eval().requires_grad_(False),
        )

    def parts(self) -> Parts:
        """The tensors, by file."""
        moments = {
            f"{index}.{name}": value
            for index, values in self.optimizer.state_dict()["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        tensors = {"learner": self.learner.state_dict(), "average": self.average.state_dict()}
        return tensors | {"optimizer": moments, "best": self.best}

    def scalars(self) -> dict[str, Any]:
        """The rest, ready for JSON."""
        return {name: getattr(self, name) for name in PLAIN} | {"scaler": self.scaler.state_dict()}

    def load(self, parts: Parts, scalars: dict[str, Any]) -> None:
        """Go back to the moment that `parts` and `scalars` hold."""
        self.learner.load_state_dict(parts["learner"])
        self.average.load_state_dict(parts["average"])
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, _, name = key.partition(".")
            like = parameters[int(index)]
            # A file holds tensors in plain order; a fused optimiser wants moments that lie in memory as the weights do.
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(index), {})[name] = moment
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.scaler.load_state_dict(scalars["scaler"])
        self.best = parts["best"]
        for name in PLAIN:
            setattr(self, name, scalars[name])

    def consider(self, score: float) -> bool:
        """Keep the averaged student if no earlier evaluation was better; of equals the later one, trained longer."""
        if score < self.best_score:
            return False
        self.best = {name: value.detach().clone() for name, value in self.average.state_dict().items()}
        self.best_score, self.best_step = score, self.step
        return True

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Set average = decay x average + (1 - decay) x student, statistics of batch norms included."""
        # A young average forgets faster, or a short run would end with the weights it began with.
        keep = min(decay, (1 + self.step) / (10 + self.step)) if decay else 0.0
        mine, theirs = self._averaged, _tensors(self.learner.student)
        torch._foreach_lerp_(mine.floats, theirs.floats, 1 - keep)
        if mine.others:
            torch._foreach_copy_(mine.others, theirs.others)

    @cached_property
    def _averaged(self) -> _Tensors:
        return _tensors(self.average)


class _Tensors(NamedTuple):
    floats: list[Tensor]
    others: list[Tensor]  # counters


def _tensors(module: nn.Module) -> _Tensors:
    every = [*module.parameters(), *module.buffers()]
    return _Tensors([t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()])


# Fused optimisers do all their work in one pass, and can skip a step where the device says so, see `train`.


def _adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def _sgd(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)
    for group in groups:
        for p in group["params"]:  # torch makes them of unwritten memory, and a first step that is skipped keeps that
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}
