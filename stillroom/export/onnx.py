"""ONNX: the file that most runtimes read, and onnxruntime as the one that runs it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stillroom.export._around import calibrating, opening, writing
from stillroom.export.file import OUTPUTS, ExportWrapper, RuntimeModel, facts, pair, require
from stillroom.io.files import scratch, temporary
from stillroom.metrics.agreement import Agreement
from stillroom.metrics.metric import Metric
from stillroom.models._onnx_errors import ExternalTensorData
from stillroom.models.network import Network
from stillroom.models.surgery import grid
from stillroom.tasks.task import Task
from stillroom.types import Answers, Output

SUFFIXES = (".onnx",)


def onnx(
    network: nn.Module,
    path: Path,
    *,
    example: Tensor,
    classes: tuple[str, ...],
    bits: Literal[32, 8, 4] = 32,
    calibration: Iterable[Tensor] = (),
    base: Path | None = None,
    method: Literal["best", "minmax", "percentile"] = "best",
    task: Task | None = None,
) -> Path:
    """Write `network` as one ONNX file: input `images` float32 [B, C, H, W] in 0..1, output as `file.OUTPUTS` says.

    B is free, and where the task allows it H and W are; normalisation, resizing and the task's last step are inside.
    What 8 and 4 bits mean is said in `_int8.quantize` and `_int4.quantize`.
    Layers that the network's form names as `float` stay so, see `forms.grid`.

    Args:
        network: maps images to an answer; a copy of it is exported, in evaluation mode.
        path: the file to write; it appears whole or not at all.
        example: [B, C, H, W], any image of the right shape.
        classes: names in label order; written into the file with task and input range.
        bits: 32 for floats, 8 for integers, 4 for floats and 4-bit weights in linear layers.
        calibration: training image batches, for 8 bits only; a few hundred images are enough.
        base: float file of the same network, exported before; it saves exporting once more, unless layers must be told
            apart, whose names it has lost.
        method: "minmax" takes the whole range that was seen, "percentile" leaves out its rare ends, 1 in 100,000
            activations. "best" takes minmax if that file agrees with the float file on 99.5 % of the calibration
            images, else whichever agrees more. The file says which it was.
        task: written into the file; None: a classifier's logits.

    Raises:
        ValueError: `bits` is none of 32, 8 and 4, there is nothing to calibrate 8 bits on, or no method of that name.
        StillroomError: SR-X702, a package is missing; SR-X703, the network can't be exported; SR-X720, it has hardly
            any weights for 4 bits; SR-R501, the disk is full.
    """
    if bits not in (32, 8, 4):
        raise ValueError(f"bits is 32, 8 or 4, not {bits}")
    batches = calibrating(bits, calibration)
    ready()
    methods = _methods(method) if bits == 8 else []
    path = Path(path)
    with temporary(path) as draft, scratch(path) as folder, writing(f"onnx, {bits} bits", path):
        answers, any_size = (task.answers, task.any_size) if task else ("classes", False)
        known = _grid(network) if bits != 32 else {}
        named = bool(known.get("float") or known.get("group"))
        source = (not named and base) or _float(network, folder / "float.onnx", example, answers, any_size)
        said = facts(classes=classes, example=example, task=task, bits=bits)
        if bits == 8:
            agreement = partial(task.agreement_metric if task else Agreement, classes=classes)
            source, chosen = _integers(source, folder, batches, methods, agreement, known.get("float", ()))
            said |= chosen
        elif bits == 4:
            source = _four(source, folder / "four.onnx", known)
        _finish(source, draft, said)
    return path


def ready() -> None:
    """Say at once what would be missing in the end.

    Raises:
        ExportPackagesMissing: SR-X702, a package is missing.
    """
    require("onnx", "onnx", "onnxscript", "onnxruntime")


class Session(RuntimeModel):
    """An ONNX file in onnxruntime. An int8 file's `facts` also tell its `calibration` and `calibration_agreement`."""

    def __init__(self, path: Path, *, threads: int | None = None):
        require("onnx", "onnx", "onnxruntime")
        import onnxruntime

        from stillroom.export import _graph

        super().__init__(path, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # Idle threads that spin would take the cores from whoever is timed next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with opening("onnxruntime", path):
            outside = _graph.external(self.path)
            if outside:
                raise ExternalTensorData(path=path, tensor=outside[0][0], outside=outside[0][1])
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts = dict(self._session.get_modelmeta().custom_metadata_map)
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, to the answer on the CPU."""
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        return Output(pred=torch.from_numpy(self._session.run([self._output], {self._input: pixels})[0]))


def load(path: Path, *, threads: int | None = None) -> Session:
    """Open an ONNX file in onnxruntime on the CPU.

    Args:
        path: the file.
        threads: threads to compute with; None takes every core this process may use. Times want 1.

    Raises:
        StillroomError: SR-X702, onnxruntime is missing; SR-X704, it refuses the file; SR-S212, the file reads others.
    """
    return Session(path, threads=threads)


def _float(network: nn.Module, path: Path, example: Tensor, answers: Answers, any_size: bool) -> Path:
    from onnx import load_model, save_model

    from stillroom.export import _graph

    speech = ExportWrapper(network, any_size=any_size)
    free = {0: torch.export.Dim("B")} | ({2: torch.export.Dim("H"), 3: torch.export.Dim("W")} if any_size else {})
    torch.onnx.export(
        speech,
        (pair(example, any_size=any_size),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["images"],
        output_names=[OUTPUTS[answers][0]],
        dynamic_shapes=(free,),
    )
    inner = next((name for name, part in speech.named_modules() if isinstance(part, Network)), None)
    if inner is not None:
        model = load_model(path)
        _graph.label(model, f"{inner}.module.")
        save_model(model, path)
    return path


def _grid(network: nn.Module) -> Mapping[str, Any]:
    """What is known of the grid that the network's weights lie on; nothing where they lie on none."""
    found = next((part for part in network.modules() if isinstance(part, Network)), None)
    return (grid.of(found.form) if found else None) or {}


def _methods(method: str) -> list[str]:
    from stillroom.export import _int8  # onnxruntime.quantization takes a second to import

    if method not in ("best", *_int8.METHODS):
        raise ValueError(f"method is one of best, {', '.join(_int8.METHODS)}, not {method!r}")
    return list(_int8.METHODS) if method == "best" else [method]


def _four(source: Path, target: Path, known: Mapping[str, Any]) -> Path:
    """The file with 4-bit weights: of the layers that lie on such a grid; where there is none, of all linear ones."""
    from stillroom.export import _int4

    floats = known.get("float", ())
    if known.get("bits") == 4 and known["group"]:
        return _int4.quantize(source, target, group=known["group"], only=known["layers"], floats=floats)
    return _int4.quantize(source, target, floats=floats)


def _integers(
    source: Path,
    folder: Path,
    batches: Sequence[Tensor],
    methods: Sequence[str],
    agreement: Callable[[], Metric],
    floats: Sequence[str],
) -> tuple[Path, dict[str, str]]:
    """The int8 file, written into `folder`, and what is to be said of how it was made."""
    from stillroom.export import _choice, _int8

    prepared = _int8.prepare(source, folder / "prepared.onnx")

    def make(method: str) -> Path:
        return _int8.quantize(prepared, folder / f"{method}.onnx", batches=batches, method=method, floats=floats)

    chosen = _choice.choose(methods, make, load, source, batches, agreement)
    return chosen.path, chosen.facts()


def _finish(source: Path, target: Path, said: dict[str, str]) -> None:
    """Strip the raw file and sign it."""
    from onnx import checker, load_model, save_model

    from stillroom.export import _graph

    model = load_model(source)
    _graph.slim(model)
    _graph.describe(model, said)
    checker.check_model(model)
    save_model(model, target)
