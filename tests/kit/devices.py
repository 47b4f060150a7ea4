"""Files to be measured, and machines to measure them on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(path: Path, *, batch: str | int, side: int = 4) -> Path:
    """An ONNX file that maps images [B, 3, side, side] to 5 logits."""
    weight = np.random.default_rng(1).standard_normal((3 * side * side, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def script(path: Path, text: str) -> Path:
    """A command."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def stand_in(folder: Path, *, before: str = "") -> str:
    """An `ssh` that runs the command here, in a home folder of its own: what is last, the host before it dropped.

    Args:
        folder: for the command and its home.
        before: shell text, as in a start-up file of the other machine.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    text = f'while [ $# -gt 1 ]; do shift; done\nexport HOME="{home}"\ncd\n{before}\nexec sh -c "$1"'
    return str(script(folder / "ssh", text))


def python(path: Path, before: str = "") -> Path:
    """A Python by another name, after some shell text."""
    return script(path, f'{before}\nexec "{sys.executable}" "$@"')
