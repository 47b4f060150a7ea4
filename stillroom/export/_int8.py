"""Static int8: weights and activations as eight-bit integers, ranges taken from calibration images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from stillroom.export import _graph

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}

OPERATORS = [*_graph.COMPUTE, "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"]
"""What is computed in integers, or passes them on. Softmax, normalisation and smooth activations stay in floats."""


class _Reader(CalibrationDataReader):
    """Hands image batches to the calibrator, one at a time."""

    def __init__(self, batches: Iterable[Tensor]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch as the session wants it; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.detach().float().cpu().numpy()}


def quantize(source: Path, target: Path, *, batches: Iterable[Tensor], method: str) -> None:
    """Write the int8 file `target` made from the float file `source`; further files may be left beside it.

    Activations uint8 and asymmetric, weights int8, symmetric, one scale a channel: the pair that x86 multiplies in
    one instruction. With int8 for both, most of the speed is lost.

    Args:
        source: float ONNX file.
        target: file to write.
        batches: image batches [B, C, H, W] in 0..1 whose activations set the ranges.
        method: a key of `METHODS`.

    Raises:
        ValueError: there are no images to calibrate on, or no method of that name.
    """
    if method not in METHODS:
        raise ValueError(f"calibration is by {' or '.join(METHODS)}, not {method!r}")
    prepared = target.with_suffix(".prepared.onnx")
    # Symbolic shape inference would need sympy's help for transformers and finds nothing more for image networks.
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    quantize_static(
        model,
        str(target),
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*_graph.entrance(model), *_graph.delicate(model)],
        calibrate_method=METHODS[method],
    )
    model = onnx.load(target)
    _graph.exact_ends(model)
    onnx.save(model, target)
