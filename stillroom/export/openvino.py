"""OpenVINO: Intel's format and runtime, made from the very ONNX file that onnxruntime would run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from stillroom.errors import StillroomError
from stillroom.export._tools import opening, quiet, writing
from stillroom.export._usage import Snippet
from stillroom.export.onnx import ONNX
from stillroom.export.runtime import Runtime, RuntimeModel
from stillroom.io.files import atomic_write, scratch_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stillroom.tasks.task import Task

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "ENABLE_CPU_PINNING": False,
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
}
"""Without the first, OpenVINO computes float files in bfloat16 wherever the processor can; without the second, what
meets four-bit weights in eight bits. It reports neither. Without the third its threads stay on cores that others keep
busy."""


class Compiled(RuntimeModel):
    """An IR in OpenVINO on the CPU, in 32-bit floats and the file's own integers."""

    def __init__(self, path: Path, threads: int | None = None):
        super().__init__(path, threads)
        with opening("openvino", path), quiet():
            core = _library().Core()
            model = core.read_model(self.path)
            compiled = core.compile_model(model, "CPU", EXACT | {"INFERENCE_NUM_THREADS": self.threads})
            self._request = compiled.create_infer_request()
        if model.has_rt_info(["stillroom"]):
            found = model.get_rt_info(["stillroom"]).value
            self.facts = {name: str(value) for name, value in found.items()}

    def run(self, images: np.ndarray) -> np.ndarray:
        """See `RuntimeModel`."""
        answer: np.ndarray = self._request.infer({0: images}, share_inputs=True)[0].copy()
        return answer


class OpenVINO(Runtime):
    """OpenVINO's IR: the graph in `NAME.xml`, the weights in `NAME.bin` beside it.

    Both are made from the ONNX file that `onnx` writes with the same arguments, so integers, ranges and layers that
    stay in floats are one and the same in both runtimes, and so are inputs and outputs: B is free, and where the task
    allows it H and W are. OpenVINO computes its QuantizeLinear and DequantizeLinear in integers.

    The facts stand in the IR's `rt_info`, under `stillroom`; the class names stand under `model_info/labels` too, where
    OpenVINO's Model API reads them (parted by blanks; blanks inside names are `_`).
    """

    title = "OpenVINO"
    suffixes = (".xml", ".bin")
    packages: ClassVar = {"openvino": "openvino"}
    extra = "openvino"
    bits = (32, 8, 4)
    base = "onnx"
    missing_operator = (r"No conversion rule found for operations: ([^\n]+)",)
    snippet = Snippet(
        imports=("import numpy as np", "import openvino"),
        opens=(
            "graph = openvino.Core().read_model({path})",
            "# Without the hint it computes floats in bfloat16 wherever the processor can.",
            'model = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        ),
        output="model(images)[0]",
        classes=('classes = json.loads(graph.get_rt_info(["stillroom", "classes"]).value)',),
    )

    def write(
        self,
        network: nn.Module,
        path: Path,
        *,
        example: Tensor,
        classes: tuple[str, ...],
        bits: int = 32,
        calibration: Iterable[Tensor] = (),
        base: Path | None = None,
        task: Task | None = None,
    ) -> Path:
        """See `Runtime.write`; `path` is the `.xml`, and an ONNX file as `base` saves exporting once more.

        Raises:
            ValueError: `path` does not end in `.xml`, or what `onnx` raises.
            StillroomError: SR-X702 a package is missing; SR-X730 OpenVINO has no such operator; SR-X703 the network
                can't be exported; SR-R501 the disk is full; what else `onnx` raises.
        """
        path = Path(path)
        if path.suffix != self.suffixes[0]:
            raise ValueError(f"OpenVINO finds the weights by the graph's name, which ends in .xml, not {path.name!r}")
        self.require()
        name = f"{self.name}, {bits} bits"
        source = base if base and base.suffix == ".onnx" else None
        with scratch_folder(path) as folder:
            given: dict[str, Any] = {"example": example, "classes": classes, "bits": bits, "task": task}
            try:
                found = ONNX().write(network, folder / "network.onnx", calibration=calibration, base=source, **given)
            except StillroomError as failure:  # names a file that is not the one asked for
                raise type(failure)(**failure.values | {"runtime": name, "path": path}) from failure.__cause__
            # The graph takes its place last, so that whoever sees it finds the weights.
            with (
                atomic_write(path) as draft,
                atomic_write(path.with_suffix(self.suffixes[1])),
                writing(name, path, self.missing_operator),
            ):
                _convert(found, draft)
        return path

    def open(self, path: Path, threads: int | None = None) -> Compiled:
        """See `Runtime.open`; `path` is the `.xml`, the `.bin` lies beside it.

        Raises:
            StillroomError: SR-X702 OpenVINO is missing; SR-X704 it refuses the file.
        """
        self.require()
        return Compiled(path, threads)

    @staticmethod
    def on_device() -> Any:
        """See `Runtime.on_device`."""
        import sys

        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would send its maker a message
        import openvino

        def open_file(file: str, threads: int) -> Any:
            # As the file was verified: left to itself, it computes in 16 bits where the processor can, and rounds what
            # meets four-bit weights.
            wishes = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
            wishes |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
            model = openvino.Core().compile_model(file, "CPU", wishes)
            used = model.get_property("INFERENCE_NUM_THREADS")
            found = {"version": openvino.__version__.partition("-")[0], "threads": used}
            return lambda images: model(images)[0], found

        return open_file


def _library() -> Any:
    """The package, imported without the one that would send its maker a message at every import and conversion.

    OpenVINO and NNCF take the absence of `openvino_telemetry` as it comes, https://docs.openvino.ai (telemetry).
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino

    return openvino


def _convert(source: Path, target: Path) -> None:
    """The ONNX file as IR, with all its facts."""
    from onnx import load_model

    library = _library()
    found = {entry.key: entry.value for entry in load_model(source).metadata_props}
    model = library.Core().read_model(source)
    for name, value in found.items():
        model.set_rt_info(value, ["stillroom", name])
    labels = (name.replace(" ", "_") for name in json.loads(found["classes"]))
    model.set_rt_info(" ".join(labels), ["model_info", "labels"])
    library.save_model(model, target, compress_to_fp16=False)
