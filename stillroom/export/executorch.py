"""ExecuTorch: a `.pte` file whose layers XNNPACK computes, and the runtime of phones and boards, here in this process.

A file takes one image at a time. With B free the runtime sets memory aside for the largest B there may ever be
(for a ResNet-18 of 64 pixels and B up to 16 sixteen times as much), lowering takes up to twice as long, and one image
takes as long as before. The opened file goes through the images of a batch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from stillroom.export._errors import UnsupportedOperator
from stillroom.export._facts import facts, one_image
from stillroom.export._tools import calibration_batches, opening, quiet, writing
from stillroom.export._usage import Snippet
from stillroom.export.runtime import Runtime, RuntimeModel
from stillroom.io.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stillroom.tasks.task import Task


class Program(RuntimeModel):
    """A `.pte` file in ExecuTorch's runtime, on the CPU.

    The runtime has one pool of threads for the whole process, and programs keep a pointer to it. So whenever a file
    is called that wants another number of threads than the pool has, all files that are open let go of their programs
    before the pool is replaced, and open them again when they are called next. Programs that others have opened in
    this process without this class would be left with a pool that is gone.
    """

    _loaded: ClassVar[WeakSet[Program]] = WeakSet()
    _program: Any
    _method: Any

    def __init__(self, path: Path, threads: int | None = None):
        super().__init__(path, threads)
        self._unload()
        with opening("executorch", path):
            self._bytes = checked_bytes(self.path)
            with quiet():
                self._load()
                self.facts = self._read_facts()
            self._shape = list(self._method.metadata.input_tensor_meta(0).sizes())

    def run(self, images: np.ndarray) -> np.ndarray:
        """See `RuntimeModel`.

        Raises:
            ValueError: images of another shape than the file takes.
        """
        import torch

        if list(images.shape[1:]) != self._shape[1:]:
            raise ValueError(f"the file takes images {self._shape[1:]}, got {list(images.shape[1:])}")
        self._load()
        parts = torch.from_numpy(images).split(self._shape[0])
        answers = [self._method.execute([part])[0] for part in parts]  # copies, not its own memory
        answer: np.ndarray = torch.cat(answers).numpy()
        return answer

    def _load(self) -> None:
        """Make sure that the program is open, and that the pool has this file's number of threads."""
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime as Library

        if portable_lib._threadpool_get_thread_count() != self.threads:
            for other in list(Program._loaded):
                other._unload()
            with quiet():
                portable_lib._unsafe_reset_threadpool(self.threads)
        if self._method is None:
            with quiet():
                self._program = Library.get().load_program(self._bytes)
                self._method = self._program.load_method("forward")
            Program._loaded.add(self)

    def _unload(self) -> None:
        """Let go of the program."""
        self._method = self._program = None

    def _read_facts(self) -> dict[str, str]:
        """The file's facts; none where it has no such method."""
        if "facts" not in self._program.method_names:
            return {}
        return dict(json.loads(self._program.load_method("facts").execute([])[0]))


class ExecuTorch(Runtime):
    """One `.pte` file for XNNPACK: input float32 [1, C, H, W] in 0..1, output as `_facts.OUTPUTS` lists it.

    H and W are the example's, whatever the task allows; normalisation, resizing and the task's last step are inside.
    What 8 bits mean is explained in `_pt2e.quantise`. The method `facts` of the file gives its facts, as a string of
    JSON.
    """

    title = "ExecuTorch"
    suffixes = (".pte",)
    packages: ClassVar = {"executorch": "executorch", "torchao": "torchao"}
    extra = "executorch"
    bits = (32, 8)
    other_bits: ClassVar = {
        4: "the quantiser for XNNPACK, which computes its files, stores weights in 8 bits, whatever their range"
    }
    missing_operator = (
        r"Missing out variants: \{'([\w:.]+)'",
        r"Operator (?:torch\.ops\.)?([\w.:]+) is not Aten Canonical",
    )
    uncounted_import = "its Python module brings torch along"
    snippet = Snippet(
        imports=("import numpy as np", "import torch", "from executorch.runtime import Runtime"),
        opens=("program = Runtime.get().load_program({path})", 'method = program.load_method("forward")'),
        output="method.execute([torch.from_numpy(images)])[0].numpy()",
        classes=(
            'facts = json.loads(program.load_method("facts").execute([])[0])',
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
        """See `Runtime.write`; `base` is not used, for the float file holds nothing that the int8 file is made of.

        Raises:
            ValueError: `bits` is none of 32, 8 and 4, or there is nothing to calibrate 8 bits on.
            StillroomError: SR-X702 the package is missing; SR-X731 4 bits; SR-X730 an operator that the runtime has
                not got; SR-X703 the network can't be exported; SR-R501 the disk is full.
        """
        import torch

        from stillroom.export._wrapper import ExportWrapper

        path = Path(path)
        self.check_bits(bits)
        batches = calibration_batches(bits, calibration)
        self.require()
        found = one_image(facts(classes=classes, example=example, task=task, bits=bits, any_size=False))
        found |= {"calibration": "histogram"} if bits == 8 else {}
        rng = torch.random.fork_rng(devices=[])  # tracing draws random numbers
        name = f"{self.name}, {bits} bits"
        with atomic_write(path) as draft, writing(name, path, self.missing_operator), rng:
            wrapper = ExportWrapper(network, plain_resize=True)
            draft.write_bytes(_program(wrapper, example, batches, found, path))
        return path

    def open(self, path: Path, threads: int | None = None) -> Program:
        """See `Runtime.open`.

        Raises:
            StillroomError: SR-X702 executorch is missing; SR-X704 it refuses the file.
        """
        self.require("executorch")
        return Program(path, threads)

    @staticmethod
    def on_device() -> Any:
        """See `Runtime.on_device`."""
        import torch
        from executorch import version
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        def open_file(file: str, threads: int) -> Any:
            torch.set_num_threads(threads)
            portable_lib._unsafe_reset_threadpool(threads)
            method = Runtime.get().load_program(file).load_method("forward")
            found = {"version": version.__version__, "threads": portable_lib._threadpool_get_thread_count()}
            return lambda images: method.execute([torch.from_numpy(images)])[0].numpy(), found

        return open_file


def checked_bytes(path: Path) -> bytes:
    """The content of a `.pte` file that is one, and whole.

    The runtime ends the process over a file of another kind: it puts the four letters of a file's kind into a
    message, and can't when they are no text.

    Raises:
        ValueError: what is wrong with it.
    """
    content = path.read_bytes()
    # Root offset, kind; then, if the file has an extended header, its kind and length, and the sizes of what follows:
    # https://github.com/pytorch/executorch/blob/main/schema/extended_header.h
    if len(content) < 64 or content[4:6] != b"ET" or not content[6:8].isdigit():
        raise ValueError("this is not an ExecuTorch program")
    if content[8:12] == b"eh00":
        length, program, base = struct.unpack_from("<IQQ", content, 12)
        segments = struct.unpack_from("<Q", content, 32)[0] if length >= 32 else 0
        if len(content) < max(program, base + segments):
            raise ValueError(f"{max(program, base + segments)} bytes are announced, there are {len(content)}")
    return content


def _program(wrapper: nn.Module, example: Tensor, batches: list[Tensor], found: dict[str, str], path: Path) -> bytes:
    """The content of the file; with batches in integers."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.runtime import Runtime as Library

    from stillroom.export import _pt2e

    one = example[:1].detach().to("cpu", torch.float32)
    network = _pt2e.quantise(wrapper, example, batches) if batches else wrapper
    lowered = to_edge_transform_and_lower(
        torch.export.export(network, (one,)),
        partitioner=[XnnpackPartitioner()],
        # The check has a list of operators that is shorter than the runtime's own, which is used below.
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods={"facts": json.dumps(found)},
    )
    program = lowered.to_executorch()
    known = Library.get().operator_registry.operator_names
    for plan in program.executorch_program.execution_plan:
        for operator in plan.operators:
            name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
            if name not in known:
                raise UnsupportedOperator(runtime="executorch", operator=name, path=path)
    return bytes(program.buffer)
