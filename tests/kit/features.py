"""Feature methods tried on tensors, without networks."""

from __future__ import annotations

import numpy as np
import torch
from scipy.signal import correlate2d
from torch import Tensor, nn

from kit.batches import batch_of
from stillroom.methods.method import Method
from stillroom.types import Output


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers; the global generator is left alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outputs(features: list[Tensor], side: str) -> Output:
    """What a network would say whose taps are called s0, s1, ... or t0, t1, ..."""
    return Output(pred=torch.zeros(len(features[0]), 2), taps={f"{side}{i}": x for i, x in enumerate(features)})


def ready(method: Method, students: list[Tensor], teachers: list[Tensor], *, seed: int = 0) -> Method:
    """The method connected to those features, the i-th with the i-th, set up on two images and in float64."""
    torch.manual_seed(seed)
    pair = outputs([x[:2] for x in students], "s"), outputs([x[:2] for x in teachers], "t")
    method.bind_taps(tuple(pair[0].taps), tuple(pair[1].taps))
    method.setup(*pair)
    return method.double()


def charge(method: Method, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
    """The method's only term, as the learner asks for it."""
    count = len(students[0])
    batch = batch_of(count, torch.zeros(count))
    seen = method.project(outputs(students, "s"))
    (term,) = method.loss(seen, outputs(teachers, "t"), batch, 0.5).values()
    return term


def teaches(method: Method, students: list[Tensor], teachers: list[Tensor]) -> bool:
    """Whether every feature of the student, and everything that the method learns, gets a gradient."""
    students = [x.clone().requires_grad_() for x in students]
    loss = charge(method, students, teachers)
    loss.backward()
    reached = all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in students)
    return bool(loss.isfinite()) and loss.ndim == 0 and reached and all(p.grad is not None for p in method.parameters())


def convolved(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """What a convolution of stride 1 that keeps the size says of x [B, C, h, w], by scipy."""
    weight = layer.weight.detach().numpy()
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for b in range(len(x)):
        for o, kernels in enumerate(weight):
            out[b, o] = sum(correlate2d(channel, kernel, "same") for channel, kernel in zip(x[b], kernels, strict=True))
            out[b, o] += 0.0 if layer.bias is None else layer.bias[o].item()
    return out


def normalised(x: np.ndarray) -> np.ndarray:
    """What a fresh batch norm in training says of x [B, C, h, w]."""
    mean, variance = (np.asarray(f(x, axis=(0, 2, 3), keepdims=True)) for f in (np.mean, np.var))
    return (x - mean) / np.sqrt(variance + 1e-5)
