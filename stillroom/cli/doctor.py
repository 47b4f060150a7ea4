"""`stillroom doctor`: what this machine has, what it lacks, and how to get it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch

from stillroom.distributed.precision import precision_for
from stillroom.errors import StillroomError
from stillroom.io import environment


def examine(folder: Path = Path()) -> dict[str, str]:
    """Subject -> what was found. Nothing is installed or fetched."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware, versions = environment.hardware(device, 1), environment.versions()
    free = shutil.disk_usage(folder).free / 1e9
    precision = str(precision_for(device, "auto")).removeprefix("torch.")
    return {
        "python": versions.pop("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB",
        "accelerator": hardware["device"] if device.type == "cuda" else "none; everything runs on the processor",
        "precision": f"auto means {precision} here",
        "disk": f"{free:.0f} GB free here" + ("" if free > 5 else "; checkpoints of large networks may not fit"),
        "onnx": _runtime("onnxruntime", "pip install 'onnxruntime>=1.23'"),
        "openvino": _runtime("openvino", "pip install 'stillroom[openvino]'"),
        "executorch": _runtime("executorch", "pip install 'stillroom[executorch]'"),
        "litert": _runtime("ai_edge_litert", "pip install 'stillroom[litert]'"),
        "litert's converter": _converter(),
        "prune": _runtime("torch_pruning", "pip install 'stillroom[prune]'"),
        "parquet": _runtime("pyarrow", "pip install 'pyarrow>=20'"),
        "average precision": _runtime("faster_coco_eval", "pip install 'stillroom[detect]'"),
        "huggingface/NAME": _runtime("transformers", "pip install 'stillroom[hub]'"),
        "torchvision": _torchvision(),
    }


def _runtime(package: str, remedy: str) -> str:
    return "there" if find_spec(package) else f"missing: {remedy}"


def _converter() -> str:
    """Where LiteRT files are written; in an environment of its own."""
    from stillroom.export.litert import converter

    try:
        return converter()
    except StillroomError as failure:
        return f"missing: {failure.fix}"


def _torchvision() -> str:
    """A torchvision built for another torch can't be imported, and takes timm with it."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as problem:
        return f"broken ({str(problem).splitlines()[0]}): install torch and torchvision together, of one build"
    return f"{torchvision.__version__}, fits torch"
