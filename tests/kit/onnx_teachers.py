"""Small ONNX files as strangers write them, built node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Axes = Sequence[int | str | None]

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def numbers(name: str, *shape: int, seed: int = 0, kind: Any = np.float32) -> TensorProto:
    """A tensor of small random numbers."""
    return numpy_helper.from_array(np.random.default_rng(seed).normal(0, 0.3, shape).astype(kind), name)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[TensorProto],
    *,
    images: Axes = ("B", 3, 32, 32),
    outputs: dict[str, Axes] | None = None,
    kind: int = FLOAT,
    inputs: Sequence[Any] = (),
    **more: Any,
) -> Path:
    """A file with the input `images`, and one output `logits` unless more are named."""
    given = [helper.make_tensor_value_info("images", kind, list(images)), *inputs]
    said = [helper.make_tensor_value_info(n, kind, list(s)) for n, s in (outputs or {"logits": ("B", 10)}).items()]
    graph = helper.make_graph(list(nodes), "teacher", given, said, list(tensors))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **more), path)
    return path


def classifier(
    path: Path, *, classes: int = 10, images: Axes = ("B", 3, 32, 32), kind: int = FLOAT, **more: Any
) -> Path:
    """A convolution, the mean over places, and a product: any side, unless `images` says another."""
    number = np.float16 if kind == HALF else np.float32
    tensors = [numbers("w", 8, 3, 3, 3, kind=number), numbers("v", 8, classes, seed=1, kind=number)]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("MatMul", ["features", "v"], ["logits"]),
    ]
    return write(path, nodes, tensors, images=images, kind=kind, outputs={"logits": (images[0], classes)}, **more)


def change(path: Path, edit: Any) -> Path:
    """The file with its model edited in place."""
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path
