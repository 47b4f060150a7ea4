"""Weights that lie on a grid: the module is what it was, and whoever writes files must know which grid it is.

    {"kind": "grid", "bits": 8, "group": 0, "activations": 8, "layers": ["conv1", ...], "float": ["fc", ...]}

bits: of a weight. group: input values that share a scale; 0: all of an output channel do. activations: bits of what
layers read; 0: floats. layers: names of those whose weights lie on the grid. float: names of those that stay in floats
in every file, because eight bits cost them most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def apply(module: nn.Module, edit: Mapping[str, Any]) -> None:
    """Nothing: a grid changes no shape."""


def find_grid(edits: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any] | None:
    """The grid that a network's weights lie on; None where they are floats like any."""
    return next((edit for edit in reversed(edits) if edit["kind"] == "grid"), None)
