"""An ONNX file as a network: looked at from a distance, opened on its own runtime, asked in pieces that it takes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.errors import StillroomError
from stillroom.models._onnx_errors import (
    ExternalTensorData,
    InvalidOnnxInput,
    ModelOpenFailed,
    OnnxReaderFailed,
    OnnxWithoutFeatures,
    UncountedOnnxOperator,
)
from stillroom.models._taps import INPUT_SUFFIX
from stillroom.models._weights_errors import InvalidWeights
from stillroom.models.network import Network
from stillroom.types import Output

LARGEST = 2**31
"""Bytes: what the format allows a file that holds all its weights itself."""

ROOM, TIMES = 4 * 2**30, 8
"""Memory of the process that looks at a file: so many bytes, and so many times the file's size."""

PATIENCE = 600
"""Seconds that it may take."""

SIDES = (32, 64, 96, 128, 160, 192, 224)
"""H = W that are tried where the file takes any size, but not the data's."""


@dataclass(frozen=True, kw_only=True)
class OnnxInfo:
    """What was found out about a file, see `_onnx_inspect.inspect_model`."""

    input: str
    kind: str
    channels: int
    last: bool
    batch: int
    side: int
    tried: int
    outputs: list[tuple[str, list[int]]]
    macs: int
    numbers: int
    own: dict[str, str]


def inspect_file(path: Path, size: int) -> tuple[bytes, OnnxInfo]:
    """A file's bytes, after another process has read, checked, opened and asked them.

    Args:
        path: the file.
        size: side of the data's images, in pixels.

    Raises:
        StillroomError: SR-M310 not there; SR-S212 it points at other files; SR-S214 it is larger than a file can be,
            damaged, or needs more memory or time than its size explains; SR-X704 onnxruntime refuses it; SR-M363 it
            takes no images; SR-M365 its work can't be counted.
    """
    try:
        large = path.stat().st_size > LARGEST
        data = b"" if large else path.read_bytes()
    except OSError as problem:
        raise InvalidWeights(file=path, problem=problem.strerror) from problem
    if large:
        raise OnnxReaderFailed(path=path, problem=f"it has more than {LARGEST} bytes, the most that one file may")
    memory = ROOM + TIMES * len(data)
    sides = [size, *(side for side in SIDES if side > size)]
    question = json.dumps({"memory": memory, "sides": sides, "batches": [2, 1]})
    # -P: or else the folder of this file would be searched first, in which `onnx` is one of ours.
    command = [sys.executable, "-P", str(Path(__file__).with_name("_onnx_inspect.py")), question]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as problem:
        raise OnnxReaderFailed(path=path, problem=f"it gave no answer in {PATIENCE} seconds") from problem
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        room = f"with {memory / 2**30:.0f} GiB of memory the process that looked at it died: {last[:300]}"
        raise OnnxReaderFailed(path=path, problem=room)
    found: dict[str, Any] = json.loads(done.stdout)
    if refused := found.get("refused"):
        raise _failure(path, refused, found["problem"])
    return data, OnnxInfo(**found)


def _failure(path: Path, kind: str, problem: str) -> StillroomError:
    if kind == "outside":
        tensor, where = json.loads(problem)
        return ExternalTensorData(path=path, tensor=tensor, outside=where)
    if kind == "unopened":
        return ModelOpenFailed(runtime="onnxruntime", path=path, problem=problem)
    if kind == "uncounted":
        return UncountedOnnxOperator(path=path, operator=problem)
    return (OnnxReaderFailed if kind == "damaged" else InvalidOnnxInput)(path=path, problem=problem)


class OnnxProgram(nn.Module):
    """Pixels [B, C, H, W] as the file wants them, on any device, to one of its outputs, in float32.

    It runs on the processor, with as many threads as torch has at the time, and gives no gradient. An image's answer
    does not depend on what else is in the batch. Copies share the bytes and open a session of their own when asked.

    Args:
        data: the file, as `look` gave it.
        facts: likewise.
        output: the name of the output that is wanted.

    Attributes:
        sha256: of the file, a buffer [32], so that two files are two states.
        macs: multiply-accumulates of one image.
        numbers: how many weights the file has.
    """

    sha256: Tensor

    def __init__(self, data: bytes, facts: OnnxInfo, output: str):
        super().__init__()
        digest = hashlib.sha256(data).digest()
        self.register_buffer("sha256", torch.tensor(list(digest), dtype=torch.uint8))
        self.macs, self.numbers = facts.macs, facts.numbers
        self._data, self._facts, self._output = data, facts, output
        self._shape = dict(facts.outputs)[output]
        self._session, self._threads = None, 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which is opened again where it is needed."""
        return self.__dict__ | {"_session": None}

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, ...]."""
        if pixels.is_meta or not len(pixels):
            return pixels.new_empty(len(pixels), *self._shape)
        here = pixels.detach().to("cpu", getattr(torch, self._facts.kind))
        here = (here.permute(0, 2, 3, 1) if self._facts.last else here).contiguous()
        pieces = here.split(self._facts.batch or len(here))
        return torch.cat([self._run(piece) for piece in pieces]).to(pixels.device)

    def _run(self, piece: Tensor) -> Tensor:
        """A piece is filled up with its last image where the file takes so many and no fewer."""
        lacking = self._facts.batch - len(piece) if self._facts.batch else 0
        full = torch.cat([piece, piece[-1:].expand(lacking, -1, -1, -1)]) if lacking > 0 else piece
        (said,) = self._opened().run([self._output], {self._facts.input: full.numpy()})
        return torch.from_numpy(said)[: len(piece)].float()

    def _opened(self) -> Any:
        """The session, for as many threads as torch has now."""
        threads = torch.get_num_threads()
        if self._session is None or self._threads != threads:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.use_deterministic_compute = True
            options.log_severity_level = 3
            # Idle threads that spin would take the cores from the student, whose turn is next.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
            self._threads = threads
        return self._session


class OnnxEmbedder(OnnxProgram):
    """A program whose answer is a vector, which can be listened to as `vector`, as that of any embedding network."""

    def __init__(self, data: bytes, facts: OnnxInfo, output: str):
        super().__init__(data, facts, output)
        self.vector = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, D]."""
        said: Tensor = self.vector(super().forward(pixels))
        return said


class OnnxNetwork(Network):
    """A network that says so when it is asked for inner features: a file of a program has none to tap."""

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        """As `Network.forward`. SR-M362 for a tap that is no part of it."""
        known = self.tap_names()
        for tap in taps:
            if tap.removesuffix(INPUT_SUFFIX) not in known:
                raise OnnxWithoutFeatures(tap=tap)
        return super().forward(images, taps)
