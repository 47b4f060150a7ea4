"""A small network of scikit-learn's as ONNX files of floats and of int8 weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPRegressor

Says = Callable[[np.ndarray], np.ndarray]


def export(folder: Path, model: MLPRegressor) -> Iterator[tuple[str, Says]]:
    """The student as ONNX files of floats and of int8 weights with a scale for each output."""
    for bits in (32, 8):
        nodes, tensors, weights = [helper.make_node("Flatten", ["images"], ["x0"])], [], []
        for layer, (matrix, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
            last = layer == len(model.coefs_) - 1
            matrix, bias = ((4 if last else 1) * part.astype(np.float32) for part in (matrix, bias))
            tensors.append(numpy_helper.from_array(bias, f"b{layer}"))
            if bits == 8:
                scale = np.abs(matrix).max(0) / 127
                short = np.round(matrix / scale).astype(np.int8)
                zero = np.zeros(len(scale), np.int8)
                for name, value in (("q", short), ("s", scale.astype(np.float32)), ("z", zero)):
                    tensors.append(numpy_helper.from_array(value, f"{name}{layer}"))
                names = [f"{name}{layer}" for name in "qsz"]
                nodes.append(helper.make_node("DequantizeLinear", names, [f"w{layer}"], axis=1))
                matrix = short * scale
            else:
                tensors.append(numpy_helper.from_array(matrix, f"w{layer}"))
            weights.append((matrix, bias))
            nodes.append(
                helper.make_node("Gemm", [f"x{layer}", f"w{layer}", f"b{layer}"], ["logits" if last else f"h{layer}"])
            )
            if not last:
                nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"x{layer + 1}"]))
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
        graph = helper.make_graph(nodes, "student", [images], [logits], tensors)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(made, folder / "exports" / ("student.onnx" if bits == 32 else "student.int8.onnx"))
        yield f"onnx-{bits}", _layers(weights)


def _layers(weights: list[tuple[np.ndarray, np.ndarray]]) -> Says:
    (first, bias), (second, end) = weights
    return lambda images: np.maximum(images @ first + bias, 0) @ second + end
