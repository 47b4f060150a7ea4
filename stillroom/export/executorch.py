"""ExecuTorch: a `.pte` file whose layers XNNPACK computes, and the runtime of phones and boards, here in this process.

A file takes one image at a time. With B free the runtime sets memory aside for the largest B there may ever be
(for a ResNet-18 of 64 pixels and B up to 16 sixteen times as much), lowering takes up to twice as long, and one image
takes as long as before. The callable goes through the images of a batch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from stillroom.export import file
from stillroom.export._around import calibrating, opening, writing
from stillroom.export._errors import UnsupportedBits, UnsupportedOperator
from stillroom.export.file import ExportWrapper, RuntimeModel, quiet, require
from stillroom.io.files import atomic_write
from stillroom.tasks.task import Task
from stillroom.types import Output

SUFFIXES = (".pte",)


def executorch(
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
    """Write `network` as one `.pte` file for XNNPACK: input float32 [1, C, H, W] in 0..1, output as `file.OUTPUTS`.

    H and W are the example's, whatever the task allows; normalisation, resizing and the task's last step are inside.
    What 8 bits mean is said in `_pt2e.quantise`. The method `facts` of the file gives back what it says of itself, as
    a string of JSON.

    Args:
        network: maps images to an answer; a copy of it is exported, in evaluation mode.
        path: the file to write; it appears whole or not at all.
        example: [B, C, H, W], any image of the right shape.
        classes: names in label order; written into the file with task and input range.
        bits: 32 for floats, 8 for integers.
        calibration: training image batches, for 8 bits only; a few hundred images are enough.
        base: not used; the float file holds nothing that the int8 file is made of.
        task: written into the file; None: a classifier's logits.

    Raises:
        ValueError: `bits` is none of 32, 8 and 4, or there is nothing to calibrate 8 bits on.
        StillroomError: SR-X702, the package is missing; SR-X731, 4 bits; SR-X730, an operator that the runtime has not
            got; SR-X703, the network can't be exported; SR-R501, the disk is full.
    """
    path = Path(path)
    if bits == 4:
        problem = "the quantiser for XNNPACK, which computes its files, stores weights in 8 bits, whatever their range"
        raise UnsupportedBits(target="executorch", bits=bits, problem=problem, path=path)
    if bits not in (32, 8):
        raise ValueError(f"bits is 32, 8 or 4, not {bits}")
    batches = calibrating(bits, calibration)
    ready()
    said = _facts(classes, example, task, bits)
    rng = torch.random.fork_rng(devices=[])  # tracing draws random numbers
    with atomic_write(path) as draft, writing(f"executorch, {bits} bits", path), rng:
        draft.write_bytes(_program(ExportWrapper(network, plain_resize=True), example, batches, said, path))
    return path


def ready() -> None:
    """Say at once what would be missing in the end.

    Raises:
        ExportPackagesMissing: SR-X702, a package is missing.
    """
    require("executorch", "executorch")


class Program(RuntimeModel):
    """A `.pte` file in ExecuTorch's runtime, on the CPU.

    The runtime has one pool of threads for the whole process, and programs keep a pointer to it. So whenever a file
    is called that wants another number of threads than the pool has, all files that are open let go of their programs
    before the pool is replaced, and open them again when they are called next. Programs that others have opened in
    this process without this class would be left with a pool that is gone.
    """

    _open: ClassVar[WeakSet[Program]] = WeakSet()
    _program: Any
    _method: Any

    def __init__(self, path: Path, *, threads: int | None = None):
        ready()
        super().__init__(path, threads)
        self._end()
        with opening("executorch", path):
            self._bytes = whole(self.path)
            with quiet():
                self._begin()
                self.facts = self._said()
            self._takes = list(self._method.metadata.input_tensor_meta(0).sizes())

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, to the answer on the CPU.

        Raises:
            ValueError: images of another shape than the file takes.
        """
        if list(images.shape[1:]) != self._takes[1:]:
            raise ValueError(f"the file takes images {self._takes[1:]}, got {list(images.shape[1:])}")
        self._begin()
        pixels = images.detach().to("cpu", torch.float32).contiguous()
        said = [self._method.execute([part])[0] for part in pixels.split(self._takes[0])]  # copies, not its own memory
        return Output(pred=torch.cat(said))

    def _begin(self) -> None:
        """See to it that the program is open, and that the pool has this file's number of threads."""
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if portable_lib._threadpool_get_thread_count() != self.threads:
            for other in list(Program._open):
                other._end()
            with quiet():
                portable_lib._unsafe_reset_threadpool(self.threads)
        if self._method is None:
            with quiet():
                self._program = Runtime.get().load_program(self._bytes)
                self._method = self._program.load_method("forward")
            Program._open.add(self)

    def _end(self) -> None:
        """Let go of the program."""
        self._method = self._program = None

    def _said(self) -> dict[str, str]:
        """What the file says of itself; nothing where it has no such method."""
        if "facts" not in self._program.method_names:
            return {}
        return dict(json.loads(self._program.load_method("facts").execute([])[0]))


def load(path: Path, *, threads: int | None = None) -> Program:
    """Open a `.pte` file in ExecuTorch's runtime on the CPU.

    Args:
        path: the file.
        threads: threads to compute with; None takes every core this process may use. Times want 1.

    Raises:
        StillroomError: SR-X702, executorch is missing; SR-X704, it refuses the file.
    """
    return Program(path, threads=threads)


def whole(path: Path) -> bytes:
    """The content of a `.pte` file that is one, and whole.

    The runtime ends the process over a file of another kind: it puts the four letters in which a file says its kind
    into a message, and can't when they are no text.

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


def _facts(classes: tuple[str, ...], example: Tensor, task: Task | None, bits: int) -> dict[str, str]:
    """As every file's, but for one image of one size."""
    said = file.facts(classes=classes, example=example, task=task, bits=bits, any_size=False)
    said |= {name: said[name].replace("[B, ", "[1, ") for name in ("input", "output")}
    return said | ({"calibration": "histogram"} if bits == 8 else {})


def _program(speech: nn.Module, example: Tensor, batches: list[Tensor], said: dict[str, str], path: Path) -> bytes:
    """The content of the file; with batches in integers."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.runtime import Runtime

    from stillroom.export import _pt2e

    one = example[:1].detach().to("cpu", torch.float32)
    network = _pt2e.quantise(speech, example, batches) if batches else speech
    lowered = to_edge_transform_and_lower(
        torch.export.export(network, (one,)),
        partitioner=[XnnpackPartitioner()],
        # The check knows a list of operators that is shorter than what the runtime has; that is asked below.
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods={"facts": json.dumps(said)},
    )
    program = lowered.to_executorch()
    there = Runtime.get().operator_registry.operator_names
    for plan in program.executorch_program.execution_plan:
        for operator in plan.operators:
            name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
            if name not in there:
                raise UnsupportedOperator(target="executorch", operator=name, path=path)
    return bytes(program.buffer)
