"""The digits run as if its student had been pruned and made ready for integers: figures that are told, not measured."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from stillroom.benchmark import tradeoff
from stillroom.metrics.measurement import wilson

KINDS = (("onnx", 32), ("onnx", 8), ("openvino", 8), ("executorch", 8), ("litert", 8), ("onnx", 4))
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "executorch": ".pte", "litert": ".tflite"}
CANDIDATES = [
    {"what": "int8", "macs": 1036, "size_mb": 0.9, "latency_ms": 6.2, "meets": False},
    {"what": "int8, prune 0.5", "macs": 518, "size_mb": 0.5, "latency_ms": 3.1, "meets": True, "chosen": True},
    {"what": "int8, prune 0.25", "macs": 259, "size_mb": 0.3, "latency_ms": None, "meets": None},
]
TRAIL = [
    {"stage": "distilled", "what": "distilled, before compression", "score": 0.95}
    | {"macs": 1036, "bytes": 4240, "latency_ms": 0.2, "seconds": 40.0},
    {"stage": "prune", "what": "prune, macs=0.5", "score": 0.93}
    | {"macs": 518, "bytes": 2120, "latency_ms": 0.15, "seconds": 12.0},
    {"stage": "student", "what": "qat, bits=8", "score": 0.94}
    | {"macs": 518, "bytes": 2120, "latency_ms": 0.15, "seconds": 9.0},
]


def figure(value: float, **more: Any) -> dict[str, Any]:
    """A figure that somebody tells."""
    return {"value": value, "how": "told"} | more


def row(share: float, latency: float, size: float, **more: Any) -> dict[str, Any]:
    """A network of that accuracy of 450 images, latency in ms and bytes."""
    return {
        "accuracy": figure(share, ci95=list(wilson(round(450 * share), 450)), n=450),
        "agreement": figure(share - 0.01),
        "latency_ms": figure(latency, stable=True),
        "latency_p95_ms": figure(1.2 * latency),
        "throughput": figure(1000 / latency),
        "bytes": figure(size),
    } | more


def metrics(found: dict[str, Any], *, met: bool = True) -> dict[str, Any]:
    """`metrics.json` of a compressed run out of that of one without compression."""
    found = copy.deepcopy(found)
    shapes = {"teacher": (0.98, 0.9, 40_000), "baseline": (0.90, 0.15, 2120), "student": (0.94, 0.15, 2120)}
    for role, values in shapes.items():
        found[role] |= row(*values)
    found["teacher"].pop("agreement")
    found["student"] |= {"peak_mb": figure(2.5), "load_ms": figure(1.5), "energy_j": figure(0.002, source="measured")}
    found["teacher"] |= {"peak_mb": figure(9.0), "energy_j": figure(0.012, source="measured")}
    found["stages"] = [
        {"stage": "distilled", "what": "distilled, before compression"} | row(0.95, 0.2, 4240),
        {"stage": "prune", "what": "prune, macs=0.5"} | row(0.93, 0.16, 2150),
    ]
    found["exports"] = [
        {"target": target, "bits": bits, "path": f"exports/student.{bits}{SUFFIX[target]}", "verified": True}
        | row(0.94 - 0.001 * place, 0.05 + 0.01 * place, 600 * bits / 8 + place)
        for place, (target, bits) in enumerate(KINDS)
    ]
    found["exports"][2]["latency_ms"]["stable"] = False
    found["exports"][3]["verified"] = False
    latency = 3.1 if met else 7.125
    found["target"] = {
        "runtime": "onnx",
        "threads": 1,
        "where": "this machine",
        "file": "onnx-8",
        "limits": {"latency_ms": 5.0, "size_mb": 2.0},
        "found": {"latency_ms": figure(latency, how="50 calls on the device"), "size_mb": figure(0.5)},
        "met": met,
        "why": "" if met else "the smallest candidate is still too slow",
    }
    return tradeoff.attach(found, "accuracy")


def make_compressed(run: Path, folder: Path, *, met: bool = True) -> Path:
    """`folder`: a copy of the run at `run`, as if compressed for a target that it met or missed."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report.html", "README.md"))
    found = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics(found, met=met)))
    about = json.loads((folder / "run.json").read_text())
    about |= {"compress": TRAIL, "chosen": {"why": "the best that meets both limits", "table": CANDIDATES}}
    (folder / "run.json").write_text(json.dumps(about))
    return folder
