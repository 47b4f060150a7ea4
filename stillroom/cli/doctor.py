"""`stillroom doctor`: what this machine has, what it lacks, and how to get it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch

from stillroom.distributed.precision import precision_for
from stillroom.export import runtime
from stillroom.io import environment


def examine(folder: Path = Path()) -> dict[str, str]:
    """Subject -> what was found. Nothing is installed or fetched."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware, versions = environment.hardware(device, 1), environment.versions(runtime.packages())
    free = shutil.disk_usage(folder).free / 1e9
    precision = str(precision_for(device, "auto")).removeprefix("torch.")
    return {
        "python": versions.pop("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB",
        "accelerator": hardware["device"] if device.type == "cuda" else "none; everything runs on the processor",
        "precision": f"auto means {precision} here",
        "disk": f"{free:.0f} GB free here" + ("" if free > 5 else "; checkpoints of large networks may not fit"),
        **{name: text for one in runtime.built_in().values() for name, text in one.status().items()},
        "prune": _package("torch_pruning", "pip install 'stillroom[prune]'"),
        "parquet": _package("pyarrow", "pip install 'pyarrow>=20'"),
        "average precision": _package("faster_coco_eval", "pip install 'stillroom[detect]'"),
        "huggingface/NAME": _package("transformers", "pip install 'stillroom[hub]'"),
        "torchvision": _torchvision(),
    }


def _package(package: str, remedy: str) -> str:
    return "installed" if find_spec(package) else f"missing: {remedy}"


def _torchvision() -> str:
    """A torchvision built for another torch can't be imported, and takes timm with it."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as problem:
        return f"broken ({str(problem).splitlines()[0]}): install torch and torchvision together, of one build"
    return f"{torchvision.__version__}, fits torch"
