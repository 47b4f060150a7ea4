"""Versions and hardware: for `run.json`, so that a figure can be traced, and for `stillroom doctor`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("stillroom", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "torch-pruning")


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Python and the packages whose version can change a figure, as far as they are installed.

    Args:
        more: packages besides `PACKAGES`: those of the runtimes.
    """
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, *more)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device, processes: int) -> dict[str, Any]:
    """Processor, memory and threads."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "system": platform.platform(terse=True),
    }


def _cpu() -> str:
    """The processor's name; its architecture where the system does not report one."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
