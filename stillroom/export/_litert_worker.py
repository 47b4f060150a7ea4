"""Makes LiteRT files, in a Python environment of its own: `python -I _litert_worker.py FOLDER`.

Stands alone, for nothing of this program is installed where it runs. FOLDER holds

    request.json     {"within": regex, "float": [regex, ...]}
    program.pt2      an exported program, from `images` float32 [1, C, H, W]; or, made before,
    float.tflite     its float file, which is written otherwise
    calibration.npy  images [N, C, H, W]; if there, int8.tflite is written too

and on failure gets error.json, {"problem": text}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMPUTE = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
"""Operators that hold nearly all of a network's weights and work."""

PASSING = (
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "PADV2", "CONCATENATION", "RELU"),
    *("RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE"),
)
"""Operators that pass integers on. Softmax, normalisation and smooth activations stay in floats, as do products of two
activations."""

RECTIFIED = "[Rr]e[Ll][Uu]|Hardtanh"
"""In the name of a sum, that of the ReLU behind it. Sums without one stay in floats: see `_graph.delicate`."""

LAST = r"^serving_default_"
"""How the converter names what is an output of the file."""


def main(folder: Path) -> None:
    """Write what the request asks for."""
    request = json.loads((folder / "request.json").read_text())
    plain, calibration = folder / "float.tflite", folder / "calibration.npy"
    if not plain.exists():
        convert(folder / "program.pt2", plain)
    if calibration.exists():
        quantize(plain, folder / "int8.tflite", calibration, request["within"], request["float"])


def convert(source: Path, target: Path) -> None:
    """Write the float file; its tensors keep the names of the modules that they come from."""
    import litert_torch
    import torch

    program = torch.export.load(source)
    (image,) = (node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    images = torch.zeros(*map(int, image.shape))
    litert_torch.convert(program.module(), sample_kwargs={"images": images}).export(str(target))


def quantize(source: Path, target: Path, calibration: Path, within: str, floats: list[str]) -> None:
    """Write the int8 file: weights symmetric, one scale a channel; activations asymmetric, ranges as seen.

    The first thing is a rounding of normalised pixels. The last layer's sums are not rounded: rounded logits tie.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    images = np.load(calibration, mmap_mode="r")
    model = quantizer.Quantizer(str(source))
    for operator in (*COMPUTE, *PASSING):
        model.add_static_config(within, operator, 8, 8)
    model.add_static_config(f"(?=.*(?:{within}))(?=.*(?:{RECTIFIED}))", "ADD", 8, 8)
    for operator in COMPUTE:
        model.add_dynamic_config(LAST, operator, 8)
    for layer in floats:
        for operator in COMPUTE:
            model.update_quantization_recipe(layer, operator, algorithm_key="no_quantize")

    def one_by_one() -> Iterator[dict[str, Any]]:
        for image in images:
            yield {"images": np.ascontiguousarray(image[None])}

    # The quantiser's own `calibrate` follows a moving average of each image's range, which is less than what is seen.
    # This is the same with the range of all of them.
    seen = calibrator.Calibrator(source.read_bytes(), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    seen.calibrate({"serving_default": list(one_by_one())}, model._recipe_manager)
    ranges = seen.get_model_qsvs()
    made = model.quantize(ranges, enable_progress_report=False).quantized_model
    if not any(tensor["dtype"] == np.int8 for tensor in Interpreter(model_content=bytes(made)).get_tensor_details()):
        raise ValueError("no layer was found that could be computed in integers")
    target.write_bytes(made)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        main(place)
    except Exception as problem:
        kind = "" if isinstance(problem, RuntimeError) else f"{type(problem).__name__}: "
        (place / "error.json").write_text(json.dumps({"problem": f"{kind}{problem}"}))
        raise
