"""ONNX: the file that most runtimes read, and onnxruntime as the one that runs it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stillroom.export._facts import OUTPUTS, facts
from stillroom.export._tools import calibration_batches, opening, writing
from stillroom.export._usage import Snippet
from stillroom.export.runtime import Runtime, RuntimeModel
from stillroom.io.files import atomic_write, scratch_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stillroom.metrics.metric import Metric
    from stillroom.tasks.task import Task
    from stillroom.types import OutputKind


class Session(RuntimeModel):
    """An ONNX file in onnxruntime. An int8 file's `facts` have its `calibration` and `calibration_agreement` too."""

    def __init__(self, path: Path, threads: int | None = None):
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
            _graph.refuse_external(self.path)
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts = dict(self._session.get_modelmeta().custom_metadata_map)
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """See `RuntimeModel`."""
        answer: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        return answer


class ONNX(Runtime):
    """Input `images` float32 [B, C, H, W] in 0..1, output as `_facts.OUTPUTS` lists it.

    B is free, and where the task allows it H and W are; normalisation, resizing and the task's last step are inside.
    What 8 and 4 bits mean is explained in `_int8.quantize` and `_int4.quantize`. Layers that the network's form names
    as `float` stay so, see `surgery.grid`.
    """

    title = "ONNX"
    suffixes = (".onnx",)
    packages: ClassVar = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
    bits = (32, 8, 4)
    missing_operator = (r"No ONNX function found for <OpOverload\(op='([\w.]+)'",)
    snippet = Snippet(
        imports=("import numpy as np", "import onnxruntime"),
        opens=("session = onnxruntime.InferenceSession({path})",),
        output="session.run(None, {session.get_inputs()[0].name: images})[0]",
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
        method: Literal["best", "minmax", "percentile"] = "best",
        task: Task | None = None,
    ) -> Path:
        """See `Runtime.write`.

        Args:
            network: as in the base class.
            path: as in the base class.
            example: as in the base class.
            classes: as in the base class.
            bits: as in the base class.
            calibration: a few hundred training images are enough.
            base: saves exporting once more, unless single layers stay in floats: the file has lost their names.
            method: "minmax" takes the whole range that was seen, "percentile" leaves out its rare ends, 1 in 100,000
                activations. "best" takes minmax if that file agrees with the float file on 99.5 % of the calibration
                images, else whichever agrees more. The file records which it was.
            task: as in the base class.

        Raises:
            ValueError: `bits` is none of 32, 8 and 4, there is nothing to calibrate 8 bits on, or no method of that
                name.
            StillroomError: SR-X702 a package is missing; SR-X730 ONNX has no such operator; SR-X703 the network can't
                be exported; SR-X720 it has hardly any weights for 4 bits; SR-R501 the disk is full.
        """
        self.check_bits(bits)
        batches = calibration_batches(bits, calibration)
        self.require()
        methods = _methods(method) if bits == 8 else []
        path = Path(path)
        with (
            atomic_write(path) as draft,
            scratch_folder(path) as folder,
            writing(f"{self.name}, {bits} bits", path, self.missing_operator),
        ):
            answers, any_size = (task.output_kind, task.any_size) if task else ("classes", False)
            known = _grid(network) if bits != 32 else {}
            named = bool(known.get("float") or known.get("group"))
            source = (not named and base) or _float(network, folder / "float.onnx", example, answers, any_size)
            found = facts(classes=classes, example=example, task=task, bits=bits)
            if bits == 8:
                source, chosen = _int8(source, folder, batches, methods, _agreement(task, classes), known)
                found |= chosen
            elif bits == 4:
                source = _int4(source, folder / "four.onnx", known)
            _finish(source, draft, found)
        return path

    def open(self, path: Path, threads: int | None = None) -> Session:
        """See `Runtime.open`.

        Raises:
            StillroomError: SR-X702 onnxruntime is missing; SR-X704 it refuses the file; SR-S212 the file reads others.
        """
        self.require("onnx", "onnxruntime")
        return Session(path, threads)

    @staticmethod
    def on_device() -> Any:
        """See `Runtime.on_device`."""
        import onnxruntime

        def open_file(file: str, threads: int) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            used = session.get_session_options().intra_op_num_threads
            found = {"version": onnxruntime.__version__, "threads": used}
            return lambda images: session.run(None, {name: images})[0], found

        return open_file


def _float(network: nn.Module, path: Path, example: Tensor, output_kind: OutputKind, any_size: bool) -> Path:
    import torch
    from onnx import load_model, save_model

    from stillroom.export import _graph
    from stillroom.export._wrapper import ExportWrapper, traced_pair
    from stillroom.models.network import Network

    wrapper = ExportWrapper(network, any_size=any_size)
    free = {0: torch.export.Dim("B")} | ({2: torch.export.Dim("H"), 3: torch.export.Dim("W")} if any_size else {})
    torch.onnx.export(
        wrapper,
        (traced_pair(example, any_size=any_size),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["images"],
        output_names=[OUTPUTS[output_kind][0]],
        dynamic_shapes=(free,),
    )
    inner = next((name for name, part in wrapper.named_modules() if isinstance(part, Network)), None)
    if inner is not None:
        model = load_model(path)
        _graph.label(model, f"{inner}.module.")
        save_model(model, path)
    return path


def _grid(network: nn.Module) -> Mapping[str, Any]:
    """The grid that the network's weights lie on; nothing where they lie on none."""
    from stillroom.models.network import Network
    from stillroom.models.surgery import grid

    found = next((part for part in network.modules() if isinstance(part, Network)), None)
    return (grid.find_grid(found.edits) if found else None) or {}


def _methods(method: str) -> list[str]:
    from stillroom.export import _int8  # onnxruntime.quantization takes a second to import

    if method not in ("best", *_int8.METHODS):
        raise ValueError(f"method is one of best, {', '.join(_int8.METHODS)}, not {method!r}")
    return list(_int8.METHODS) if method == "best" else [method]


def _agreement(task: Task | None, classes: tuple[str, ...]) -> Callable[[], Metric]:
    from stillroom.metrics.agreement import Agreement

    return partial(task.agreement_metric if task else Agreement, classes=classes)


def _int4(source: Path, target: Path, known: Mapping[str, Any]) -> Path:
    """The file with 4-bit weights: of the layers that lie on such a grid; where there is none, of all linear ones."""
    from stillroom.export import _int4

    floats = known.get("float", ())
    if known.get("bits") == 4 and known["group"]:
        return _int4.quantize(source, target, group=known["group"], only=known["layers"], floats=floats)
    return _int4.quantize(source, target, floats=floats)


def _int8(
    source: Path,
    folder: Path,
    batches: Sequence[Tensor],
    methods: Sequence[str],
    agreement: Callable[[], Metric],
    known: Mapping[str, Any],
) -> tuple[Path, dict[str, str]]:
    """The int8 file, written into `folder`, and the facts of how it was calibrated."""
    from stillroom.export import _choice, _int8

    prepared, floats = _int8.prepare(source, folder / "prepared.onnx"), known.get("float", ())

    def make(method: str) -> Path:
        return _int8.quantize(prepared, folder / f"{method}.onnx", batches=batches, method=method, floats=floats)

    chosen = _choice.choose(methods, make, ONNX().open, source, batches, agreement)
    return chosen.path, chosen.facts()


def _finish(source: Path, target: Path, found: dict[str, str]) -> None:
    """Strip the raw file and write its facts into it."""
    from onnx import checker, load_model, save_model

    from stillroom.export import _graph

    model = load_model(source)
    _graph.slim(model)
    _graph.describe(model, found)
    checker.check_model(model)
    save_model(model, target)
