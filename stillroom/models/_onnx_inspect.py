"""What an ONNX file is, found out at a distance: a program of its own, with little memory, that answers in JSON.

    python -P _onnx_inspect.py '{"memory": 4000000000, "sides": [32, 224], "batches": [2, 1]}' < model.onnx

A file of a stranger may point at other files, claim more memory than there is, be cut off, or never end. Here all of
that happens to a process that can be spared; only a file that was read, opened and asked once here is opened by others.
It imports nothing of this package, so that it starts in a moment.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime

Shape = tuple[int, ...]

PIXELS = {"tensor(float)": "float32", "tensor(float16)": "float16"}
"""Kinds of numbers that a file may take for pixels."""

HEAVY = re.compile("Attention|Conv|Einsum|Gemm|GRU|LSTM|MatMul|RNN")
"""Operators that hold nearly all of a network's work; one that is not in `MACS` can't be counted."""

WEIGHTS = set(map(onnx.TensorProto.DataType.Value, ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")))
"""Types of numbers that are weights; shapes and places are int64, an integer layer's biases int32."""


class Refused(ValueError):
    """Why the file is not opened; `kind` is one of `outside`, `damaged`, `unopened`, `misfit`, `uncounted`."""

    def __init__(self, kind: str, problem: str):
        self.kind = kind
        super().__init__(problem)


def inspect_model(data: bytes, sides: list[int], batches: list[int]) -> dict[str, Any]:
    """What the file takes, gives and costs.

    Args:
        data: the file.
        sides: H = W to try, in this order, where the file leaves them open.
        batches: numbers of images to try, likewise.

    Returns:
        `input`, `kind`, `channels`, `last` (channels are the last axis), `batch` (0: any), `side` (0: any), `tried`
        (the side that it was asked with), `outputs` ([name, shape of one image's answer]), `macs` of one image,
        `numbers` (its weights), `own` (what a file of this program says of itself).

    Raises:
        Refused: with what is wrong.
    """
    model = _read(data)
    session = _opened(data)
    found = _input(session)
    fixed = [found["side"]] * (found["side"] > 0), [found["batch"]] * (found["batch"] > 0)
    for side, batch in itertools.product(fixed[0] or sides, fixed[1] or batches):
        feed = {found["input"]: _noise(found, side, batch)}
        try:
            outputs = _answers(session, feed)
        except Exception as trouble:  # whatever a graph may say against a size
            problem = trouble
            continue
        del session  # the second one, for counting, needs the room
        own = {entry.key: entry.value for entry in model.metadata_props} if model.producer_name == "stillroom" else {}
        numbers = sum(math.prod(tensor.dims) for tensor in _tensors(model) if tensor.data_type in WEIGHTS)
        macs = _macs(model, feed) // batch
        more = {"tried": side, "outputs": outputs, "macs": macs, "numbers": numbers, "own": own}
        return found | more | {"batch": found["batch"] or batch * (batch == 1)}
    raise Refused("misfit", f"asked about {batch} images of {side} px, it fails: {_line(problem)}")


def _read(data: bytes) -> onnx.ModelProto:
    """The file, parsed and checked; nothing beside it is read."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as problem:
        raise Refused("damaged", f"it is no ONNX file, or a part of one: {_line(problem)}") from problem
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise Refused("outside", json.dumps([tensor.name, where]))
        # No type packs more than two numbers into a byte.
        if math.prod(tensor.dims) > 2 * tensor.ByteSize() or min(tensor.dims, default=0) < 0:
            claim = "x".join(map(str, tensor.dims))
            raise Refused("damaged", f"its tensor {tensor.name!r} claims {claim} numbers, and holds fewer")
    try:
        onnx.checker.check_model(model)
    except Exception as problem:
        raise Refused("damaged", f"it is not as ONNX demands: {_line(problem)}") from problem
    return model


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor in the file, wherever it stands: weights, constants, in branches and functions too."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def _opened(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise Refused("unopened", _line(problem)) from problem


def _input(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """The one input that takes images, and in which form."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise Refused("misfit", f"it has {len(inputs)} inputs: {', '.join(one.name for one in inputs) or 'none'}")
    (one,) = inputs
    if one.type not in PIXELS or len(one.shape) != 4:
        raise Refused("misfit", f"its input {one.name} is {one.type} of shape {one.shape}")
    batch, *axes = (axis if isinstance(axis, int) else 0 for axis in one.shape)
    last = axes[2] in (1, 3) and axes[0] not in (1, 3)
    channels, *sides = axes[-1:] + axes[:-1] if last else axes
    if channels not in (0, 1, 3) or (all(sides) and sides[0] != sides[1]):
        raise Refused("misfit", f"its input {one.name} has the shape {one.shape}")
    form = {"channels": channels or 3, "last": last, "batch": batch, "side": max(sides)}
    return {"input": one.name, "kind": PIXELS[one.type]} | form


def _answers(session: onnxruntime.InferenceSession, feed: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """(name, shape of one image's answer) of every output that answers each image, whatever stands beside it.

    Raises:
        ValueError: there is none. A file of dynamic quantisation scales its numbers by the whole batch, for example.
    """
    ((name, images),) = feed.items()
    beside = np.concatenate([images[:1], 10 * images[1:]])
    kept, first = [], session.run(None, {name: images})
    for value, one, other in zip(session.get_outputs(), first, session.run(None, {name: beside}), strict=True):
        if getattr(one, "shape", ())[:1] == (len(images),) and np.allclose(one[0], other[0], 1e-3, 1e-5):
            kept.append((value.name, list(one.shape[1:])))
    if not kept:
        raise ValueError("no output has an answer for each image that depends on this image alone")
    return kept


def _noise(found: Mapping[str, Any], side: int, batch: int) -> np.ndarray[Any, Any]:
    channels = found["channels"]
    shape = (batch, side, side, channels) if found["last"] else (batch, channels, side, side)
    return np.random.default_rng(0).random(shape).astype(found["kind"])


def _macs(model: onnx.ModelProto, feed: Mapping[str, Any]) -> int:
    """Multiply-accumulates of all that it is fed with, from the shapes that its inner tensors have while it runs."""
    bare = onnx.inliner.inline_local_functions(model)
    nodes = [node for node in bare.graph.node if HEAVY.search(node.op_type)]
    inside = [node for node in _nodes_inside(bare.graph) if HEAVY.search(node.op_type)]
    if strange := [node.op_type for node in nodes if _rule(node) is None] + [node.op_type for node in inside]:
        raise Refused("uncounted", strange[0])
    shapes = {tensor.name: tuple(tensor.dims) for tensor in bare.graph.initializer}
    wanted = dict.fromkeys(name for node in nodes for name in (*node.input, node.output[0]) if name)
    names = [name for name in wanted if name not in shapes and name not in feed]
    del bare.graph.output[:]
    bare.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    if names:
        said = _opened(bare.SerializeToString()).run(names, dict(feed))
        shapes |= {name: one.shape for name, one in zip(names, said, strict=True)}
    shapes |= {name: one.shape for name, one in feed.items()}
    return sum(_rule(node)(node, shapes.__getitem__) for node in nodes)  # type: ignore[misc]


def _nodes_inside(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of branches and loops."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from inner.node
                yield from _nodes_inside(inner)


Rule = Callable[[onnx.NodeProto, Callable[[str], Shape]], int]


def _convolution(weight: int, *, turned: bool = False) -> Rule:
    """Each output number is a sum over the kernel and a group's channels; transposed, each input is spread so."""
    return lambda n, of: math.prod(of((n.input if turned else n.output)[0])) * math.prod(of(n.input[weight])[1:])


def _product(node: onnx.NodeProto, of: Callable[[str], Shape]) -> int:
    """Each output number is a sum over the axis that both matrices share."""
    left, turned = of(node.input[0]), any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(of(node.output[0])) * left[-2 if turned else -1]


def _attention(node: onnx.NodeProto, of: Callable[[str], Shape]) -> int:
    """Every query meets every key, and every weight a value."""
    keys = of(node.input[1])[-2]
    return (math.prod(of(node.input[0])) + math.prod(of(node.output[0]))) * keys


def _einsum(node: onnx.NodeProto, of: Callable[[str], Shape]) -> int:
    """Every combination of the letters."""
    text = next(one.s.decode() for one in node.attribute if one.name == "equation").replace(" ", "")
    words = text.partition("->")[0].split(",")
    if "." in text or len(words) != 2:
        raise Refused("uncounted", f"Einsum {text}")
    pairs = zip(words, node.input, strict=True)
    return math.prod({axis: n for word, name in pairs for axis, n in zip(word, of(name), strict=True)}.values())


MACS: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger"), _convolution(1)),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "QLinearMatMul"), _product),
    **dict.fromkeys(("MatMul", "FusedMatMul", "MatMulInteger", "DynamicQuantizeMatMul"), _product),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _convolution(1, turned=True),
    "Einsum": _einsum,
}
"""Operator -> its multiply-accumulates. The operators are those of ONNX and onnxruntime's own."""


def _rule(node: onnx.NodeProto) -> Rule | None:
    merged = node.op_type == "Attention" and node.domain not in ("", "ai.onnx")  # holds the weights of q, k and v too
    return None if merged else MACS.get(node.op_type)


def _line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:300]


def _main(question: dict[str, Any]) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (question["memory"], question["memory"]))
    except (ImportError, ValueError, OSError):  # a system without such limits
        pass
    try:
        found = inspect_model(sys.stdin.buffer.read(), question["sides"], question["batches"])
    except Refused as refused:
        found = {"refused": refused.kind, "problem": str(refused)}
    print(json.dumps(found))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
