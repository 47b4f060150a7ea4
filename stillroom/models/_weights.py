"""Weights from a file, without running anything that the file holds.

Safetensors first; else a state dict through `torch.load(weights_only=True)`; else refused, naming what it wanted to
call. A pickle that needs more runs only when the user gives its sha256, and then in another process, which hands back
tensors and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stillroom.errors import StillroomError
from stillroom.models._state import Unusable, tensors
from stillroom.models._weights_errors import (
    InvalidWeights,
    TrustedHashMismatch,
    UntrustedPickle,
)

Metadata = dict[str, str]
TORCH_FILE = (b"PK\x03\x04", b"\x80")
"""How a file of `torch.save` begins: as a zip archive, or, before torch 1.6, as a pickle."""


def read_weights(path: Path | str, *, trust: str | None = None) -> tuple[dict[str, Tensor], Metadata]:
    """The state dict in a file, and what the file says about it.

    Half-precision weights come as float32. Wrappers (`{"state_dict": ...}`, `{"model": ...}` and the like) and
    prefixes that all names share (`module.`, `_orig_mod.`) are taken off.

    Args:
        path: a safetensors file or a file of `torch.save`; the content decides, not the name.
        trust: `sha256:` and 64 hex digits: if the file has that hash, it may run its own code to be read.

    Raises:
        StillroomError: SR-M310 not there or damaged; SR-S210 needs code to be run; SR-S213 the hash is another.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError as problem:
        raise InvalidWeights(file=path, problem=problem.strerror) from problem
    if trust is not None:
        _trusted(path, trust)
    if start.startswith(TORCH_FILE) and path.suffix != ".safetensors":
        return _torch(path, trust)
    return _safetensors(path, start, size)


def statistics_from_metadata(said: Metadata) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of the pixels, where a file's metadata has both: "0.5,0.5,0.5"."""
    try:
        mean, std = ([float(part) for part in said[key].strip("[]() ").split(",")] for key in ("mean", "std"))
    except (KeyError, ValueError):
        return None
    return mean, std


def _safetensors(path: Path, start: bytes, size: int) -> tuple[dict[str, Tensor], Metadata]:
    claimed = int.from_bytes(start[:8], "little")
    if size < 9 or start[8:9] != b"{":
        raise InvalidWeights(file=path, problem=f"neither safetensors nor a file of torch.save ({size} bytes)")
    if claimed > size - 8:
        raise InvalidWeights(file=path, problem=f"header larger than file ({claimed} bytes claimed, {size} there)")
    try:
        with safe_open(path, framework="pt") as file:
            return tensors({key: file.get_tensor(key) for key in file.keys()}), dict(file.metadata() or {})  # noqa: SIM118
    except Unusable as problem:
        raise InvalidWeights(file=path, problem=str(problem)) from problem
    except (SafetensorError, RuntimeError, ValueError) as problem:
        raise InvalidWeights(file=path, problem=f"{problem}; {size} bytes are there") from problem


def _torch(path: Path, trust: str | None) -> tuple[dict[str, Tensor], Metadata]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Detected pickle protocol 4": either it loads, or the error says more
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged pickle fails in every way there is
        if not (isinstance(problem, pickle.UnpicklingError) or "TorchScript" in str(problem)):
            raise InvalidWeights(file=path, problem=one_line(problem)) from problem
        if trust is None:
            raise _refused(path, str(problem)) from problem
        return _elsewhere(path, trust)
    return _found(path, held)


def _found(path: Path, held: Any) -> tuple[dict[str, Tensor], Metadata]:
    try:
        return tensors(held), {}
    except Unusable as problem:
        raise InvalidWeights(file=path, problem=str(problem)) from problem


def _refused(path: Path, problem: str) -> StillroomError:
    """What the file wanted to call, by name. Reading the names runs nothing."""
    try:
        wanted = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # files from before torch 1.6, bare pickles and damaged ones
        wanted = re.findall(r"GLOBAL ([\w.]+)", problem) or _named(path)
    needs = ", ".join(map(repr, wanted)) or ("a TorchScript program" if "TorchScript" in problem else "to run code")
    return UntrustedPickle(file=path.name, needs=needs, sha256=_sha256(path))


def _named(path: Path) -> list[str]:
    """What a bare pickle calls by name, read off its opcodes; nothing is run."""
    found, words = set(), list[str]()
    try:
        with path.open("rb") as file:
            for code, argument, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    found.add(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    found.add(".".join(words[-2:]))
                elif isinstance(argument, str):
                    words.append(argument)
    except ValueError:  # it ends early, or is no pickle at all
        pass
    return sorted(found)


def _trusted(path: Path, trust: str) -> None:
    if trust.lower() != f"sha256:{(found := _sha256(path))}":
        raise TrustedHashMismatch(file=path.name, given=trust, sha256=found)


def one_line(problem: Exception) -> str:
    """An exception's kind and the first line of its text."""
    return f"{type(problem).__name__}: {str(problem).strip()}".splitlines()[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _elsewhere(path: Path, trust: str) -> tuple[dict[str, Tensor], Metadata]:
    """Read a pickle in a process of its own, which writes back safetensors.

    The file is copied first and the copy's hash compared, so that what runs is what was trusted.
    """
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        copy, result = Path(folder, "weights.pt"), Path(folder, "weights.safetensors")
        copy.write_bytes(path.read_bytes())
        _trusted(copy, trust)
        command = [sys.executable, "-m", "stillroom.models._state", str(copy), str(result)]
        home = str(Path(__file__).parents[2])
        known = os.pathsep.join([home, *(entry for entry in sys.path if entry)])  # the file's classes are the user's
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": known}, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode or not result.is_file():
            lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
            raise InvalidWeights(file=path, problem=lines[-1])
        state, said = read_weights(result)
        # The mapping is closed with the folder, so the tensors must be this process's own.
        return {key: value.clone() for key, value in state.items()}, said
