"""LiteRT's converter, in a Python environment of its own: where it is, and what it is given."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.export._errors import LiteRTConverterMissing

if TYPE_CHECKING:
    from torch import Tensor, nn

WORKER = Path(__file__).with_name("_litert_worker.py")


def pins() -> str:
    """What the converter's environment holds. An exported program is sure to be read by the torch that wrote it."""
    return f"litert-torch==0.10.0 torch=={version('torch').partition('+')[0]}"


def converter() -> str:
    """The Python that has the converter.

    Raises:
        LiteRTConverterMissing: SR-X732 there is none.
    """
    named = os.environ.get("STILLROOM_LITERT")
    if named and os.access(named, os.X_OK):
        return named
    if not named and find_spec("litert_torch"):
        return sys.executable
    problem = f"STILLROOM_LITERT={named} can't be run" if named else "STILLROOM_LITERT is not set"
    raise LiteRTConverterMissing(problem=problem, pins=pins())


def trace(network: nn.Module, example: Tensor, output: str, path: Path) -> None:
    """Write the program, its one output under the name `output`, from which the converter takes it."""
    import torch

    from stillroom.export._wrapper import NamedOutput

    image = example[:1].detach().to("cpu", torch.float32).contiguous()
    torch.export.save(torch.export.export(NamedOutput(network, output), (), {"images": image}), path)


def convert(python: str, folder: Path) -> None:
    """Have the worker do it; its output goes nowhere, but its error is raised here."""
    # Isolated: the worker's own folder holds an `onnx.py`, and this program's packages are not to be found by it.
    silent = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [python, "-I", str(WORKER), str(folder)], env=os.environ | silent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        error = folder / "error.json"
        last = (done.stderr.strip().splitlines() or [f"the converter ended with {done.returncode}"])[-1]
        raise RuntimeError(json.loads(error.read_text())["problem"] if error.exists() else last)


def within(network: nn.Module) -> str:
    """What the names of tensors inside the module have in them, unlike those that normalise, resize and draw boxes."""
    from stillroom.models.network import Network

    wrapped = any(isinstance(part, Network) for part in network.modules())
    return r"\.Network_[^/;]*/|^serving_default_" if wrapped else "."


def floats(network: nn.Module) -> list[str]:
    """What the names of tensors have in them that come out of layers which stay in floats."""
    from stillroom.models.network import Network
    from stillroom.models.surgery import grid

    found = []
    for part in network.modules():
        kept: Sequence[str] = (grid.find_grid(part.edits) or {}).get("float", ()) if isinstance(part, Network) else ()
        for layer in kept:
            found.append("_module/" + "/".join(rf"[^/;]*_{re.escape(name)}" for name in layer.split(".")) + "[;/]")
            if isinstance(part, Network) and layer in part.head:
                found.append("^serving_default_")  # the converter renames what is an output
    return found
