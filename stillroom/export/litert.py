"""LiteRT, formerly TensorFlow Lite: the runtime of phones and boards.

Its converter's requirements clash with this program's (typing-extensions below 4.13 against pydantic), so it lives in a
Python environment of its own, which the variable `STILLROOM_LITERT` names. Its runtime is small and lives here.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any, ClassVar

from stillroom.export._errors import LiteRTConverterMissing
from stillroom.export._facts import OUTPUTS, facts, one_image
from stillroom.export._litert_converter import convert, converter, floats, trace, within
from stillroom.export._tools import calibration_batches, opening, writing
from stillroom.export._usage import Snippet
from stillroom.export.runtime import Runtime, RuntimeModel
from stillroom.io.files import atomic_write, scratch_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stillroom.tasks.task import Task
    from stillroom.types import OutputKind


class Interpreter(RuntimeModel):
    """A LiteRT file in its interpreter, with XNNPACK's kernels; several images are shown one after the other."""

    def __init__(self, path: Path, threads: int | None = None):
        from ai_edge_litert import interpreter

        super().__init__(path, threads)
        with opening("litert", path), _mute():
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=self.threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self.facts = _packed(self.path)

    def run(self, images: np.ndarray) -> np.ndarray:
        """See `RuntimeModel`; images of the size the file is made for."""
        import numpy as np

        answers = []
        for image in images:
            self._interpreter.set_tensor(self._input, image[None])
            self._interpreter.invoke()
            answers.append(self._interpreter.get_tensor(self._output))
        return np.concatenate(answers)


class LiteRT(Runtime):
    """One LiteRT file: input `images` float32 [1, C, H, W] in 0..1, output as `_facts.OUTPUTS` lists it.

    One image at a time, of the example's size: the converter takes no other. Normalisation, resizing and the task's
    last step are inside. What 8 bits mean is explained in `_litert_worker.quantize`; layers that the network's form
    names as `float` stay so, see `surgery.grid`.

    The facts are packed behind the model as TensorFlow Lite's metadata has it, as a zip archive: `facts.json`, and
    `labels.txt` with a class name a line. Any unzip reads it.
    """

    title = "LiteRT"
    suffixes = (".tflite",)
    packages: ClassVar = {"ai_edge_litert": "ai-edge-litert"}
    extra = "litert"
    bits = (32, 8)
    other_bits: ClassVar = {
        4: "its quantiser has four bits with one scale for a whole channel only, which is too coarse"
    }
    missing_operator = (r"Lowering not found: ([\w.]+)",)
    snippet = Snippet(
        imports=("import numpy as np", "from ai_edge_litert.interpreter import Interpreter"),
        opens=("model = Interpreter({path})", "model.allocate_tensors()"),
        runs=('model.set_tensor(model.get_input_details()[0]["index"], images)', "model.invoke()"),
        output='model.get_tensor(model.get_output_details()[0]["index"])',
        classes=(
            'facts = json.loads(zipfile.ZipFile({path}).read("facts.json"))',
            'classes = json.loads(facts["classes"])',
        ),
        one_image=True,
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
        """See `Runtime.write`; the ranges of integers are all that was seen in `calibration`.

        Raises:
            ValueError: `bits` is none of 32, 8 and 4, or there is nothing to calibrate 8 bits on.
            StillroomError: SR-X732 there is no converter; SR-X730 LiteRT has no such operator; SR-X731 4 bits; SR-X703
                the network can't be exported; SR-R501 the disk is full.
        """
        import numpy as np
        import torch

        path = Path(path)
        self.check_bits(bits)
        batches = calibration_batches(bits, calibration)
        python = converter()
        answers: OutputKind = task.output_kind if task else "classes"
        found = one_image(facts(classes=classes, example=example, task=task, bits=bits, any_size=False))
        name = f"{self.name}, {bits} bits"
        with atomic_write(path) as draft, scratch_folder(path) as folder, writing(name, path, self.missing_operator):
            if base and bits == 8:
                copyfile(base, folder / "float.tflite")
            else:
                trace(network, example, OUTPUTS[answers][0], folder / "program.pt2")
            request = {"within": within(network), "float": floats(network)}
            (folder / "request.json").write_text(json.dumps(request))
            if batches:
                np.save(folder / "calibration.npy", torch.cat([b.detach().float().cpu() for b in batches]).numpy())
            convert(python, folder)
            (folder / ("int8.tflite" if bits == 8 else "float.tflite")).replace(draft)
            _pack(draft, found, classes)
        return path

    def open(self, path: Path, threads: int | None = None) -> Interpreter:
        """See `Runtime.open`.

        Raises:
            StillroomError: SR-X702 the runtime is missing; SR-X704 it refuses the file.
        """
        self.require()
        return Interpreter(path, threads)

    def ready(self, *bits: int) -> None:
        """See `Runtime.ready`.

        Raises:
            StillroomError: as there; SR-X732 there is no converter.
        """
        super().ready(*bits)
        converter()

    def status(self) -> dict[str, str]:
        """The runtime, and where its converter is."""
        try:
            found = converter()
        except LiteRTConverterMissing as failure:
            found = f"missing: {failure.fix}"
        return super().status() | {f"{self.name}'s converter": found}

    @staticmethod
    def on_device() -> Any:
        """See `Runtime.on_device`."""
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        def open_file(file: str, threads: int) -> Any:
            network = Interpreter(model_path=file, num_threads=threads)
            network.allocate_tensors()
            entry, end = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

            def predict(images: Any) -> Any:
                network.set_tensor(entry, images)
                network.invoke()
                return network.get_tensor(end)

            return predict, {"version": ai_edge_litert.__version__, "threads": threads}

        return open_file


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


def _pack(path: Path, found: dict[str, str], classes: tuple[str, ...]) -> None:
    """Append the facts; with fixed dates, so that equal files are equal bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("facts.json"), json.dumps(found, ensure_ascii=False))
        archive.writestr(zipfile.ZipInfo("labels.txt"), "".join(f"{' '.join(name.split())}\n" for name in classes))


def _packed(path: Path) -> dict[str, str]:
    """A file's facts; none where it was made elsewhere."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if "facts.json" not in archive.namelist():
            return {}
        found = json.loads(archive.read("facts.json"))
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}
