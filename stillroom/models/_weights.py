"""Reading weights from a file without running code in it.

Accepted are safetensors and state dicts that `torch.load(weights_only=True)` can read. Other pickles are refused, with
the names of the functions that they would call. Such a pickle is read only if the user gives its sha256, and then in a
separate process that returns nothing but tensors.
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
"""First bytes of a file of `torch.save`: a zip archive, or, before torch 1.6, a pickle."""


def read_weights(path: Path | str, *, trust: str | None = None) -> tuple[dict[str, Tensor], Metadata]:
    """The state dict and the metadata of a file.

    Half-precision weights are returned as float32. Wrappers (`{"state_dict": ...}`, `{"model": ...}` and the like) and
    prefixes that all names share (`module.`, `_orig_mod.`) are removed.

    Args:
        path: a safetensors file or a file of `torch.save`, told apart by content.
        trust: `sha256:` and 64 hex digits: a file with this hash may run code while it is read.

    Raises:
        StillroomError: SR-M310 missing or damaged; SR-S210 it would run code; SR-S213 another hash than trusted.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError as problem:
        raise InvalidWeights(file=path, problem=problem.strerror) from problem
    if trust is not None:
        _check_hash(path, trust)
    if start.startswith(TORCH_FILE) and path.suffix != ".safetensors":
        return _read_torch(path, trust)
    return _read_safetensors(path, start, size)


def statistics_from_metadata(metadata: Metadata) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of the pixels, such as "0.5,0.5,0.5"; None unless the metadata has both."""
    try:
        mean, std = ([float(part) for part in metadata[key].strip("[]() ").split(",")] for key in ("mean", "std"))
    except (KeyError, ValueError):
        return None
    return mean, std


def _read_safetensors(path: Path, start: bytes, size: int) -> tuple[dict[str, Tensor], Metadata]:
    header = int.from_bytes(start[:8], "little")
    if size < 9 or start[8:9] != b"{":
        raise InvalidWeights(file=path, problem=f"neither safetensors nor a file of torch.save ({size} bytes)")
    if header > size - 8:
        raise InvalidWeights(file=path, problem=f"header larger than file (header {header} bytes, file {size} bytes)")
    try:
        with safe_open(path, framework="pt") as file:
            return tensors({key: file.get_tensor(key) for key in file.keys()}), dict(file.metadata() or {})  # noqa: SIM118
    except Unusable as problem:
        raise InvalidWeights(file=path, problem=str(problem)) from problem
    except (SafetensorError, RuntimeError, ValueError) as problem:
        raise InvalidWeights(file=path, problem=f"{problem}; the file has {size} bytes") from problem


def _read_torch(path: Path, trust: str | None) -> tuple[dict[str, Tensor], Metadata]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Detected pickle protocol 4": if loading fails, the error is more precise
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged pickle raises many types of error
        if not (isinstance(problem, pickle.UnpicklingError) or "TorchScript" in str(problem)):
            raise InvalidWeights(file=path, problem=one_line(problem)) from problem
        if trust is None:
            raise _untrusted(path, str(problem)) from problem
        return _read_in_other_process(path, trust)
    try:
        return tensors(content), {}
    except Unusable as problem:
        raise InvalidWeights(file=path, problem=str(problem)) from problem


def _untrusted(path: Path, problem: str) -> StillroomError:
    """SR-S210 with the names of the functions that the file would call, which can be read without running them."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # files from before torch 1.6, bare and damaged pickles
        names = re.findall(r"GLOBAL ([\w.]+)", problem) or _names_in_pickle(path)
    needs = ", ".join(map(repr, names)) or ("a TorchScript program" if "TorchScript" in problem else "to run code")
    return UntrustedPickle(file=path.name, needs=needs, sha256=_sha256(path))


def _names_in_pickle(path: Path) -> list[str]:
    """The functions that a bare pickle would call, from its opcodes; nothing is run."""
    found, strings = set(), list[str]()
    try:
        with path.open("rb") as file:
            for code, argument, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    found.add(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    found.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except ValueError:  # truncated, or not a pickle
        pass
    return sorted(found)


def _check_hash(path: Path, trust: str) -> None:
    if trust.lower() != f"sha256:{(found := _sha256(path))}":
        raise TrustedHashMismatch(file=path.name, given=trust, sha256=found)


def one_line(problem: Exception) -> str:
    """The type of an exception and the first line of its text."""
    return f"{type(problem).__name__}: {str(problem).strip()}".splitlines()[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_in_other_process(path: Path, trust: str) -> tuple[dict[str, Tensor], Metadata]:
    """Read a pickle in a separate process, which returns its tensors as safetensors.

    The file is copied first and the hash of the copy is checked, so that the file can't change in between.
    """
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        copy, result = Path(folder, "weights.pt"), Path(folder, "weights.safetensors")
        copy.write_bytes(path.read_bytes())
        _check_hash(copy, trust)
        command = [sys.executable, "-m", "stillroom.models._state", str(copy), str(result)]
        package = str(Path(__file__).parents[2])
        search_path = os.pathsep.join([package, *(entry for entry in sys.path if entry)])  # for classes of the user
        environment = os.environ | {"PYTHONPATH": search_path}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not result.is_file():
            lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
            raise InvalidWeights(file=path, problem=lines[-1])
        state, metadata = read_weights(result)
        # Clones, because the memory-mapped file is deleted with the folder.
        return {key: value.clone() for key, value in state.items()}, metadata
