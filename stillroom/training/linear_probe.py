"""Fit a network's classifier to new classes, with everything below it left as it is.

Logistic regression on the features that the classifier reads (a linear probe): convex, so there is nothing to tune but
its strength, which the val split chooses.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from stillroom.data.dataset import Split
from stillroom.data.loader import in_order
from stillroom.evaluation.predict import predict
from stillroom.models._taps import INPUT_SUFFIX
from stillroom.models.network import Network

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C: smaller holds the weights closer to 0


@torch.no_grad()
def linear_probe(network: Network, train: Split, val: Split, *, device: torch.device, batch: int = 64) -> float:
    """Fit each of the network's heads in place; the best share of val images that a head gets right.

    Args:
        network: whose `head` names one or more linear layers, or 1x1 convolutions, of K outputs.
        train: images to fit on, looked at once, without augmentation; those without a label are passed over.
        val: images that choose the strength.
        device: where the network runs.
        batch: images at a time.
    """
    network.to(device).eval()
    (features, y), (held_out, y_val) = (_features(network, split, device, batch) for split in (train, val))
    best = 0.0
    for head, x, x_val in zip(network.heads(), features, held_out, strict=True):
        scaler = StandardScaler().fit(x)
        tries = [_fit(scaler.transform(x), y, strength) for strength in STRENGTHS]
        scores = [float(np.mean(one.predict(scaler.transform(x_val)) == y_val)) for one in tries]
        chosen = tries[int(np.argmax(scores))]
        _write(head, chosen, scaler, network.classes)
        best = max(best, max(scores))
    return best


def _features(
    network: Network, split: Split, device: torch.device, batch: int
) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """What each head reads of every image that has a label, [N, D], and the labels, [N]."""
    rows = np.flatnonzero(split.labels >= 0)
    taps = tuple(f"{name}{INPUT_SUFFIX}" for name in network.head)
    found: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    batches = in_order(split, batch, rows=rows)
    for _, outputs in predict({"network": lambda images: network(images, taps)}, batches, device):
        for tap, feature in outputs["network"].taps.items():
            found[tap].append(feature.flatten(1))
    return [torch.cat(found[tap]).numpy() for tap in taps], split.labels[rows]


def _fit(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        # Separable features have no finite optimum; an early stop is as good, and val selects among them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=500).fit(x, y)


def _write(head: nn.Module, fitted: LogisticRegression, scaler: StandardScaler, classes: int) -> None:
    """Write weight x scaled(features) + bias, with the scaling folded into weight and bias.

    Two classes have one row in scikit-learn, the log-odds; a class that no image has gets odds of nothing.
    """
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    rows = torch.from_numpy(fitted.classes_.astype(np.int64))
    target_weight, target_bias = head.get_parameter("weight"), head.get_parameter("bias")
    target_weight.zero_()
    target_bias.fill_(-1e4 if len(rows) < classes else 0.0)
    target_weight[rows] = torch.from_numpy(weight).to(target_weight).view(len(rows), *target_weight.shape[1:])
    target_bias[rows] = torch.from_numpy(bias).to(target_bias)
