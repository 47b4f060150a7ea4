"""LiteRT, formerly TensorFlow Lite: the runtime of phones and boards.

Its converter's requirements clash with this program's (typing-extensions below 4.13 against pydantic), so it lives in a
Python environment of its own, which the variable `STILLROOM_LITERT` names. Its runtime is small and lives here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.export._around import calibrating, opening, writing
from stillroom.export._errors import LiteRTConverterMissing, UnsupportedBits
from stillroom.export.file import OUTPUTS, ExportWrapper, RuntimeModel, facts, require
from stillroom.io.files import atomic_write, scratch_folder
from stillroom.models.network import Network
from stillroom.models.surgery import grid
from stillroom.tasks.task import Task
from stillroom.types import Output, OutputKind

SUFFIXES = (".tflite",)

WORKER = Path(__file__).with_name("_litert_worker.py")

PINS = f"litert-torch==0.10.0 torch=={torch.__version__.partition('+')[0]}"
"""What the converter's environment holds. An exported program is sure to be read by the torch that wrote it."""


def litert(
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
    """Write `network` as one LiteRT file: input `images` float32 [1, C, H, W] in 0..1, output as `file.OUTPUTS` says.

    One image at a time, of the example's size: the converter takes no other. Normalisation, resizing and the task's
    last step are inside. What 8 bits mean is said in `_litert_worker.quantize`; layers that the network's form names
    as `float` stay so, see `forms.grid`.

    What the file says of itself is packed behind the model as TensorFlow Lite's metadata has it, as a zip archive:
    `facts.json`, and `labels.txt` with a class name a line. Any unzip reads it.

    Args:
        network: maps images to an answer; a copy of it is exported, in evaluation mode.
        path: the file to write; it appears whole or not at all.
        example: [B, C, H, W], any image of the right shape.
        classes: names in label order.
        bits: 32 for floats, 8 for integers.
        calibration: training image batches, for 8 bits only; the ranges are all that was seen.
        base: float file of the same network, exported before by this target; it saves converting once more.
        task: written into the file; None: a classifier's logits.

    Raises:
        ValueError: `bits` is none of these, or there is nothing to calibrate 8 bits on.
        StillroomError: SR-X732, there is no converter; SR-X730, LiteRT has no such operator; SR-X731, 4 bits; SR-X703,
            the network can't be exported; SR-R501, the disk is full.
    """
    path = Path(path)
    if bits == 4:
        problem = "its quantiser knows four bits with one scale for a whole channel only, which is too coarse"
        raise UnsupportedBits(target="litert", bits=bits, problem=problem, path=path)
    if bits not in (32, 8):
        raise ValueError(f"bits is 32 or 8, not {bits}")
    batches = calibrating(bits, calibration)
    python = converter()
    answers: OutputKind = task.output_kind if task else "classes"
    said = facts(classes=classes, example=example, task=task, bits=bits, any_size=False)
    with atomic_write(path) as draft, scratch_folder(path) as folder, writing(f"litert, {bits} bits", path):
        if base and bits == 8:
            copyfile(base, folder / "float.tflite")
        else:
            _trace(network, example, OUTPUTS[answers][0], folder / "program.pt2")
        request = {"within": _within(network), "float": _floats(network)}
        (folder / "request.json").write_text(json.dumps(request))
        if batches:
            np.save(folder / "calibration.npy", torch.cat([b.detach().float().cpu() for b in batches]).numpy())
        _convert(python, folder)
        (folder / ("int8.tflite" if bits == 8 else "float.tflite")).replace(draft)
        _pack(draft, {name: text.replace("[B,", "[1,") for name, text in said.items()}, classes)
    return path


def ready() -> None:
    """Say at once what would be missing in the end.

    Raises:
        StillroomError: SR-X702, the runtime is missing; SR-X732, there is no converter.
    """
    require("litert", "ai_edge_litert")
    converter()


class Interpreter(RuntimeModel):
    """A LiteRT file in its interpreter, with XNNPACK's kernels; several images are shown one after the other."""

    def __init__(self, path: Path, *, threads: int | None = None):
        require("litert", "ai_edge_litert")
        from ai_edge_litert import interpreter

        super().__init__(path, threads)
        with opening("litert", path), _mute():
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=self.threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self.facts = _packed(self.path)

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, of the size the file is made for, to the answer on the CPU."""
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        answers = []
        for image in pixels:
            self._interpreter.set_tensor(self._input, image[None])
            self._interpreter.invoke()
            answers.append(self._interpreter.get_tensor(self._output))
        return Output(pred=torch.from_numpy(np.concatenate(answers)))


def load(path: Path, *, threads: int | None = None) -> Interpreter:
    """Open a LiteRT file on the CPU.

    Args:
        path: the file.
        threads: threads to compute with; None takes every core this process may use. Times want 1.

    Raises:
        StillroomError: SR-X702, the runtime is missing; SR-X704, it refuses the file.
    """
    return Interpreter(path, threads=threads)


def converter() -> str:
    """The Python that has the converter.

    Raises:
        LiteRTConverterMissing: SR-X732, there is none.
    """
    named = os.environ.get("STILLROOM_LITERT")
    if named and os.access(named, os.X_OK):
        return named
    if not named and find_spec("litert_torch"):
        return sys.executable
    problem = f"STILLROOM_LITERT={named} can't be run" if named else "STILLROOM_LITERT is not set"
    raise LiteRTConverterMissing(problem=problem, pins=PINS)


@contextmanager
def _mute() -> Iterator[None]:
    """Keep the runtime, which greets from C++, from standard error."""
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _Named(nn.Module):
    """A network whose answer has a name: the converter takes it from here."""

    def __init__(self, network: nn.Module, output: str):
        super().__init__()
        self.speech, self.output = ExportWrapper(network, plain_resize=True), output

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {self.output: self.speech(images)}


def _trace(network: nn.Module, example: Tensor, output: str, path: Path) -> None:
    image = example[:1].detach().to("cpu", torch.float32).contiguous()
    torch.export.save(torch.export.export(_Named(network, output), (), {"images": image}), path)


def _convert(python: str, folder: Path) -> None:
    """Have the worker do it; what it says goes nowhere, but its error is raised here."""
    # Isolated: the worker's own folder holds an `onnx.py`, and this program's packages are not to be found by it.
    silent = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [python, "-I", str(WORKER), str(folder)], env=os.environ | silent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        error = folder / "error.json"
        last = (done.stderr.strip().splitlines() or [f"the converter ended with {done.returncode}"])[-1]
        raise RuntimeError(json.loads(error.read_text())["problem"] if error.exists() else last)


def _within(network: nn.Module) -> str:
    """What the names of tensors inside the module have in them, unlike those that normalise, resize and draw boxes."""
    wrapped = any(isinstance(part, Network) for part in network.modules())
    return r"\.Network_[^/;]*/|^serving_default_" if wrapped else "."


def _floats(network: nn.Module) -> list[str]:
    """What the names of tensors have in them that come out of layers which stay in floats."""
    found = []
    for part in network.modules():
        kept: Sequence[str] = (grid.find_grid(part.edits) or {}).get("float", ()) if isinstance(part, Network) else ()
        for layer in kept:
            found.append("_module/" + "/".join(rf"[^/;]*_{re.escape(name)}" for name in layer.split(".")) + "[;/]")
            if isinstance(part, Network) and layer in part.head:
                found.append("^serving_default_")  # the converter renames what is an output
    return found


def _pack(path: Path, said: dict[str, str], classes: tuple[str, ...]) -> None:
    """Append what the file says of itself; with fixed dates, so that equal files are equal bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("facts.json"), json.dumps(said, ensure_ascii=False))
        archive.writestr(zipfile.ZipInfo("labels.txt"), "".join(f"{' '.join(name.split())}\n" for name in classes))


def _packed(path: Path) -> dict[str, str]:
    """What a file says of itself; nothing where it is a stranger's."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if "facts.json" not in archive.namelist():
            return {}
        said = json.loads(archive.read("facts.json"))
    return {str(name): str(text) for name, text in said.items()} if isinstance(said, dict) else {}
