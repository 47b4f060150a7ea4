"""Four-bit weights of linear layers, computed with in floats: `MatMulNBits`, as onnxruntime has it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from stillroom.export._errors import TooFewLinearWeights

GROUP = 32
"""Inputs that share a scale, where the network's weights lie on no grid."""

WORTH = 0.2
"""Least share of the weights that linear layers must hold: 4 bits make the file smaller by about 0.85 times that."""


def quantize(
    source: Path, target: Path, *, group: int = GROUP, only: Collection[str] | None = None, floats: Collection[str] = ()
) -> Path:
    """Write the file `target`, with symmetric 4-bit weights in the linear layers, and return it.

    Weights that lie on the grid of `forms._rounding.groupwise` with the same group keep their values. Nothing needs
    calibration.

    Args:
        source: the float file; nodes named as in `_graph.label`, where `only` or `floats` is given.
        target: file to write.
        group: inputs that share a scale.
        only: names of the layers to store so; None: all that are linear.
        floats: names of those that stay as they are.

    Raises:
        TooFewLinearWeights: SR-X720, so few weights are in linear layers that the file would hardly be smaller.
    """
    model = onnx.load(source)
    _as_products(model)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    chosen = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in sizes
        and node.name not in floats
        and (only is None or node.name in only)
    ]
    share = sum(sizes[name] for name in {node.input[1] for node in chosen}) / max(1, sum(sizes.values()))
    if share < WORTH:
        raise TooFewLinearWeights(share=share, path=target)
    left = {node.name for node in model.graph.node} - {node.name for node in chosen}
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=group, is_symmetric=True, nodes_to_exclude=left)
    quantizer.process()
    onnx.save(quantizer.model.model, target)
    return target


def _as_products(model: ModelProto) -> None:
    """Replace, in place, Gemm of a weight matrix by MatMul and Add: only MatMul has a 4-bit kind."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = not found.get("transA", 0) and found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0
        if node.op_type != "Gemm" or node.input[1] not in tensors or not plain:
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]])
        if found.get("transB", 0):
            weight = np.ascontiguousarray(weight.T)
        name = f"{node.output[0]}_weight"
        graph.initializer.append(numpy_helper.from_array(weight, name))
        graph.node.remove(node)
        for added in reversed(_product(node, name)):
            graph.node.insert(place, added)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _product(gemm: NodeProto, weight: str) -> list[NodeProto]:
    biased = len(gemm.input) > 2 and bool(gemm.input[2])
    product = f"{gemm.output[0]}_product" if biased else gemm.output[0]
    nodes = [onnx.helper.make_node("MatMul", [gemm.input[0], weight], [product], name=gemm.name)]
    if biased:
        nodes.append(onnx.helper.make_node("Add", [product, gemm.input[2]], [gemm.output[0]], name=f"{gemm.name}_bias"))
    return nodes
