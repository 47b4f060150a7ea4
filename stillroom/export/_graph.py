"""Surgery on ONNX graphs: less size, and the facts of the file inside it."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that hold nearly all of a network's weights and work."""


def slim(model: ModelProto) -> None:
    """Drop, in place, what only a debugger reads: stack traces, doc strings, inferred shapes, long names.

    The exporter writes up to a kilobyte of such text for every node, more than a small network's int8 weights.
    """
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    graph.name = "network"
    del graph.value_info[:]
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    _rename(model)


def _rename(model: ModelProto) -> None:
    """Number nodes and inner tensors; inputs and outputs keep their names, for users write those."""
    graph = model.graph
    short = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    for tensor in graph.initializer:
        short.setdefault(tensor.name, f"w{len(short)}")
        tensor.name = short[tensor.name]
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"t{len(short)}") for name in names]


def label(model: ModelProto, prefix: str) -> None:
    """Name compute nodes, in place, as the layers they were made of, from `prefix` on: `layer1.0.conv1`.

    A weight that a node reads is called as the layer and `.weight`; where it was transposed, and so lost its name, the
    exporter's metadata names the module that made the node. The exporter folds batch norms into convolutions, and then
    it names the norm. What was not made of a layer, or of one that ran before, keeps its name.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type not in COMPUTE or weights.isdisjoint(node.input):
            continue
        name = next((name for name in node.input[1:2] if name.endswith(".weight")), _maker(node) + ".weight")
        name = name.removesuffix(".weight").removeprefix(prefix)
        if name and name not in taken:
            node.name = name
            taken.add(name)


def _maker(node: NodeProto) -> str:
    """The innermost module whose code made a node: its scopes are modules from outside in, and last the operator."""
    noted = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
    scopes = ast.literal_eval(noted)
    return str(scopes[-2]) if len(scopes) > 1 else ""


def describe(model: ModelProto, facts: dict[str, str]) -> None:
    """Write the facts into the file, in place."""
    model.producer_name = "stillroom"
    onnx.helper.set_model_props(model, facts)


def entrance(model: ModelProto) -> list[str]:
    """Names of the nodes that no compute operator comes before: normalising and resizing. They stay in floats."""
    raw = _raw(model)
    return [node.name for node in model.graph.node if raw.issuperset(node.output)]


def _raw(model: ModelProto) -> set[str]:
    """Tensors that no compute operator had a part in: pixels, weights, and what was made of those alone."""
    raw = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    for node in model.graph.node:  # in topological order, as the format demands
        if node.op_type not in COMPUTE and raw.issuperset(node.input):
            raw.update(node.output)
    return raw


def ending(model: ModelProto) -> list[str]:
    """Names of the nodes that no compute operator comes behind: what turns numbers into boxes. They stay in floats."""
    leads = _leading(model)
    return [node.name for node in model.graph.node if node.op_type not in COMPUTE and leads.isdisjoint(node.output)]


def _leading(model: ModelProto) -> set[str]:
    """Tensors that a compute operator reads, itself or through others."""
    leads: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in COMPUTE or not leads.isdisjoint(node.output):
            leads.update(node.input)
    return leads


def delicate(model: ModelProto) -> list[str]:
    """Names of further nodes that stay in floats, for eight bits cost them much and gain little.

    Products of two activations (attention) hold no weights. A sum that no ReLU follows is a stream that is only ever
    added to (transformers, inverted residuals): it grows a few huge values, and a grid that reaches them is too
    coarse for all others. The int8 file of a small DeiT agreed with the network on 92 % of images with both in
    integers, on 99.4 % with both in floats, at the same speed.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    rectified = {node.input[0] for node in model.graph.node if node.op_type in ("Relu", "Clip")}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]
    sums = [node for node in model.graph.node if node.op_type == "Add" and node.output[0] not in rectified]
    return [node.name for node in (*products, *sums)]


def exact_ends(model: ModelProto) -> None:
    """Remove, in place, the rounding to eight bits of what goes into the first convolution, and of the outputs.

    A pixel has eight bits and no more; rounding it again, on a grid that fits three differently normalised colours at
    once, about doubles the difference in probability that eight bits make. Rounded logits tie: two classes a 256th of
    the range apart become one, and argmax then takes the first. Rounded distances move boxes. Weights stay integers at
    both ends.
    """
    graph = model.graph
    raw, outputs, leads = _raw(model), {value.name for value in graph.output}, _leading(model)
    made = {name: node for node in graph.node for name in node.output}
    for unpack in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        pack = made.get(unpack.input[0])
        if pack is None or pack.op_type != "QuantizeLinear":
            continue  # a weight
        rounded, exact = unpack.output[0], pack.input[0]
        readers = {node.op_type for node in graph.node if rounded in node.input}
        if rounded in outputs:
            graph.node.remove(unpack)
            _replace(model, exact, rounded)
        elif rounded not in leads or (exact in raw and readers == {"Conv"}):
            graph.node.remove(unpack)
            _replace(model, rounded, exact)
    _prune(model)


def _replace(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _prune(model: ModelProto) -> None:
    """Remove what is not used: nodes from the end backwards, then weights."""
    graph = model.graph
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def refuse_external(path: Path) -> None:
    """Refuse a file with a tensor that claims to lie in another file, which might be any file of the reader's.

    Raises:
        ExternalTensorData: SR-S212.
    """
    graph = onnx.load(path, load_external_data=False).graph
    constants = (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
    for tensor in (*graph.initializer, *constants):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            from stillroom.models._onnx_errors import ExternalTensorData

            outside = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise ExternalTensorData(path=path, tensor=tensor.name, outside=outside)
