"""Static int8: weights and activations as eight-bit integers, ranges taken from calibration images."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from stillroom.export import _graph

METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    # In turns ("strided", of every method, its name notwithstanding), so that one part's activations are held at once.
    "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.999, "CalibStridedMinMax": 1}),
}
"""How an activation's range is taken: all that was seen, or without its rarest values, so that the grid is finer."""

OPERATORS = [*_graph.COMPUTE, "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"]
"""What is computed in integers, or passes them on. Softmax, normalisation and smooth activations stay in floats."""

PART = 8
"""Images at a time: every activation of them is in memory at once. With 32 of 224 pixels a MobileNetV2 took 4.5 GB
where 8 take 1.9 GB, as fast and with the same file as result."""

PIXELS = 10_000_000
"""Values of images that percentiles are taken from, 66 colour images of 224 pixels: counting every activation of 256
such images took a MobileNetV2 two minutes on two cores, a quarter of them a quarter of that."""


class _Reader(CalibrationDataReader):
    """Hands images to the calibrator; with a length and ranges, as it wants for taking turns."""

    def __init__(self, parts: Sequence[Tensor]):
        self._parts = parts
        self._rest = iter(parts)

    def __len__(self) -> int:
        return len(self._parts)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The parts to hand out next."""
        self._rest = iter(self._parts[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next part as the session wants it; None at the end."""
        part = next(self._rest, None)
        return None if part is None else {"images": part.detach().float().cpu().numpy()}


def _parts(batches: Sequence[Tensor], method: str) -> Sequence[Tensor]:
    """What a method looks at, a few images at a time: at all, or for percentiles at enough, evenly spread."""
    parts = [part for batch in batches for part in batch.split(PART)]
    return parts if method == "minmax" else parts[:: math.ceil(sum(part.numel() for part in parts) / PIXELS)]


def prepare(source: Path, target: Path) -> Path:
    """Write to `target` what all methods begin with: the float file with batch norms folded and shapes inferred."""
    # Symbolic shape inference would need sympy's help for transformers and finds nothing more for image networks.
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return target


def quantize(
    prepared: Path, target: Path, *, batches: Sequence[Tensor], method: str, floats: Collection[str] = ()
) -> Path:
    """Write the int8 file `target` and return it.

    Activations uint8 and asymmetric, weights int8, symmetric, one scale a channel: the pair that x86 multiplies in
    one instruction. With int8 for both, most of the speed is lost. Weights that lie on the grid of
    `forms._rounding.channelwise` with 8 bits keep their values.

    Args:
        prepared: what `prepare` wrote.
        target: file to write.
        batches: image batches [B, C, H, W] in 0..1 whose activations set the ranges.
        method: a key of `METHODS`.
        floats: names of nodes that stay as they are.
    """
    model = onnx.load(prepared)
    calibrate, options = METHODS[method]
    quantize_static(
        model,
        str(target),
        _Reader(_parts(batches, method)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*_graph.entrance(model), *_graph.delicate(model), *_graph.ending(model), *floats],
        calibrate_method=calibrate,
        extra_options=dict(options),
    )
    model = onnx.load(target)
    _graph.exact_ends(model)
    onnx.save(model, target)
    return target
