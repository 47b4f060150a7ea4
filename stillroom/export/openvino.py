"""OpenVINO: Intel's format and runtime, made from the very ONNX file that onnxruntime would run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from stillroom.errors import StillroomError
from stillroom.export._around import opening, writing
from stillroom.export.file import RuntimeModel, quiet, require
from stillroom.export.onnx import onnx
from stillroom.io.files import atomic_write, scratch_folder
from stillroom.tasks.task import Task
from stillroom.types import Output

SUFFIXES = (".xml", ".bin")

BASE = "onnx"
"""The target whose float file saves work, where it has been written already."""

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "ENABLE_CPU_PINNING": False,
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
}
"""Without the first, OpenVINO computes float files in bfloat16 wherever the processor can; without the second, what
meets four-bit weights in eight bits. It says nothing of either. Without the third its threads stay on cores that others
keep busy."""


def openvino(
    network: nn.Module,
    path: Path,
    *,
    example: Tensor,
    classes: tuple[str, ...],
    bits: Literal[32, 8, 4] = 32,
    calibration: Iterable[Tensor] = (),
    base: Path | None = None,
    task: Task | None = None,
) -> Path:
    """Write `network` as OpenVINO's IR: the graph in `NAME.xml`, the weights in `NAME.bin` beside it.

    Both are made from the ONNX file that the target `onnx` writes with these arguments, so integers, ranges and layers
    that stay in floats are one and the same in both runtimes, and so are inputs and outputs: B is free, and where the
    task allows it H and W are. OpenVINO computes its QuantizeLinear and DequantizeLinear in integers.

    What the file says of itself stands in the IR's `rt_info`, under `stillroom`; the class names stand under
    `model_info/labels` too, where OpenVINO's Model API looks (parted by blanks; blanks inside names are `_`).

    Args:
        network: maps images to an answer; a copy of it is exported, in evaluation mode.
        path: the `.xml` to write; both files appear whole or not at all.
        example: [B, C, H, W], any image of the right shape.
        classes: names in label order.
        bits: 32 for floats, 8 for integers, 4 for floats and 4-bit weights in linear layers.
        calibration: training image batches, for 8 bits only.
        base: float file of the same network. An ONNX file saves exporting once more; OpenVINO's own does not.
        task: written into the file; None: a classifier's logits.

    Raises:
        ValueError: `path` does not end in `.xml`, or what `onnx` raises.
        StillroomError: SR-X702, a package is missing; SR-X730, OpenVINO has no such operator; SR-X703, the network
            can't be exported; SR-R501, the disk is full; what else `onnx` raises.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[0]:
        raise ValueError(f"OpenVINO finds the weights by the graph's name, which ends in .xml, not {path.name!r}")
    ready()
    name = f"openvino, {bits} bits"
    source = base if base and base.suffix == ".onnx" else None
    with scratch_folder(path) as folder:
        asked: dict[str, Any] = {"example": example, "classes": classes, "bits": bits, "task": task}
        try:
            found = onnx(network, folder / "network.onnx", calibration=calibration, base=source, **asked)
        except StillroomError as failure:  # tells of a file that nobody asked for
            values = failure.values | {"target": name, "path": path}
            raise type(failure)(**values) from failure.__cause__
        # The graph takes its place last, so that whoever sees it finds the weights.
        with atomic_write(path) as draft, atomic_write(path.with_suffix(SUFFIXES[1])), writing(name, path):
            _convert(found, draft)
    return path


def ready() -> None:
    """Say at once what would be missing in the end.

    Raises:
        ExportPackagesMissing: SR-X702, a package is missing.
    """
    require("openvino", "openvino")


class Compiled(RuntimeModel):
    """An IR in OpenVINO on the CPU, in 32-bit floats and the file's own integers."""

    def __init__(self, path: Path, *, threads: int | None = None):
        ready()
        super().__init__(path, threads)
        with opening("openvino", path), quiet():
            core = _library().Core()
            model = core.read_model(self.path)
            compiled = core.compile_model(model, "CPU", EXACT | {"INFERENCE_NUM_THREADS": self.threads})
            self._request = compiled.create_infer_request()
        if model.has_rt_info(["stillroom"]):
            said = model.get_rt_info(["stillroom"]).value
            self.facts = {name: str(value) for name, value in said.items()}

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, to the answer on the CPU."""
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        return Output(pred=torch.from_numpy(self._request.infer({0: pixels}, share_inputs=True)[0].copy()))


def load(path: Path, *, threads: int | None = None) -> Compiled:
    """Open an IR in OpenVINO on the CPU.

    Args:
        path: the `.xml`; the `.bin` lies beside it.
        threads: threads to compute with; None takes every core this process may use. Times want 1.

    Raises:
        StillroomError: SR-X702, OpenVINO is missing; SR-X704, it refuses the file.
    """
    return Compiled(path, threads=threads)


def _library() -> Any:
    """The package, imported without the one that would send its maker a message at every import and conversion.

    OpenVINO and NNCF take the absence of `openvino_telemetry` as it comes, https://docs.openvino.ai (telemetry).
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino

    return openvino


def _convert(source: Path, target: Path) -> None:
    """The ONNX file as IR, with all that it says of itself."""
    from onnx import load_model

    library = _library()
    said = {entry.key: entry.value for entry in load_model(source).metadata_props}
    model = library.Core().read_model(source)
    for name, value in said.items():
        model.set_rt_info(value, ["stillroom", name])
    labels = (name.replace(" ", "_") for name in json.loads(said["classes"]))
    model.set_rt_info(" ".join(labels), ["model_info", "labels"])
    library.save_model(model, target, compress_to_fp16=False)
