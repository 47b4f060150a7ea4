"""Small run folders of boxes, masks and vectors: real digits on a canvas, and answers that are the truth, spoilt.

Thumbnails and `probe.json` come from the program itself; figures are means over the images shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from torch import Tensor

from kit.run import _lines
from kit.stand_ins import Boxes, Masks, Vectors
from stillroom.evaluation.gallery import SampleGallery
from stillroom.types import Batch, Output

CLASSES = ("low", "middle", "high")
COUNT, SIDE = 24, 64
SPOILT = {"teacher": 0.05, "baseline": 0.6, "student": 0.3, "onnx-32": 0.3, "onnx-8": 0.45}
"""Speaker -> the share of what it says that is wrong."""
WORDS: dict[str, dict[str, str]] = {
    "boxes": {
        "name": "detection",
        "headline": "map",
        "title": "mAP",
        "by_class": "ap",
        "by_class_title": "AP by class",
        "by_class_note": "Average precision of a class.",
        "noun": "object detector",
        "tag": "object-detection",
        "use": "Finding objects of {classes} classes in an image",
        "caution": "A score is no probability.",
    },
    "pixels": {
        "name": "segmentation",
        "headline": "miou",
        "title": "mIoU",
        "by_class": "iou",
        "by_class_title": "IoU by class",
        "by_class_note": "Overlap of a class's pixels with the true ones.",
        "noun": "segmentation network",
        "tag": "image-segmentation",
        "use": "Naming one of {classes} classes for each pixel",
        "caution": "",
    },
    "vector": {
        "name": "embedding",
        "headline": "knn",
        "title": "k-NN accuracy",
        "by_class": "",
        "by_class_title": "",
        "by_class_note": "",
        "noun": "network for embeddings",
        "tag": "image-feature-extraction",
        "use": "Finding images that are alike",
        "caution": "",
    },
}
FURTHER = {
    "boxes": ("map50", "map_small"),
    "pixels": ("pixel_accuracy", "boundary_f"),
    "vector": ("recall_at_5", "probe"),
}


def make_dense(folder: Path, output_kind: str) -> Path:
    """Fill `folder` with a run whose networks say `answers`: "boxes", "pixels" or "vector"."""
    (folder / "exports").mkdir(parents=True)
    images, boxes, masks, labels = _scenes()
    said = {"boxes": _boxes, "pixels": _masks, "vector": _vectors}[output_kind]
    target = {"boxes": boxes, "pixels": masks, "vector": labels}[output_kind]
    task: Any = {"boxes": Boxes(SIDE), "pixels": Masks(), "vector": Vectors()}[output_kind]
    outputs = {name: Output(pred=said(target, images, share)) for name, share in SPOILT.items()}
    batch = Batch(images=images, target=target, keys=torch.arange(COUNT))
    samples = SampleGallery(outputs, task)
    for name, output in outputs.items():
        samples.keep(name, batch, output, task.score(output, batch).float())
    samples.write(folder / "samples", CLASSES, lambda key: f"scenes/{key:03d}.png")
    export(folder, output_kind)
    save_file({"weight": np.zeros((3, 1), np.float32)}, folder / "student.safetensors", {"channels": "1"})
    (folder / "metrics.json").write_text(json.dumps(_metrics(folder, output_kind)))
    (folder / "run.json").write_text(json.dumps(_run(output_kind)))
    evals = [{"stage": "student", "step": step, "split": "val", "score": step / 100} for step in (10, 20, 30)]
    _lines(folder / "evals.jsonl", evals)
    steps = [{"stage": "student", "step": step, "terms": {"task/loss": 9 / step}, "lr": 0.1} for step in range(1, 31)]
    _lines(folder / "steps.jsonl", steps)
    (folder / "recipe.toml").write_text(f'task = "{WORDS[output_kind]["name"]}"\n')
    return folder


def _scenes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [N, 1, H, W], boxes [N, 4, 6] in shares with score and class, masks [N, H, W], labels [N] of the first."""
    scans, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    images = np.full((COUNT, 1, SIDE, SIDE), 0.4, np.float32)
    boxes = np.full((COUNT, 4, 6), -1.0, np.float32)
    masks = np.zeros((COUNT, SIDE, SIDE), np.int64)
    for row in range(COUNT):
        for place in range(row % 4 + (row > 3)):  # the first image is empty
            chosen = int(rng.integers(len(scans)))
            left, top = (32 * part + int(rng.integers(8)) for part in (place % 2, place // 2 % 2))
            scan = np.kron(scans[chosen].reshape(8, 8) / 16, np.ones((3, 3)))
            images[row, 0, top : top + 24, left : left + 24] = scan
            label = int(digits[chosen]) // 4
            if place < 4:
                boxes[row, place] = [left / SIDE, top / SIDE, (left + 24) / SIDE, (top + 24) / SIDE, 1, label]
            masks[row, top : top + 24, left : left + 24] = np.where(
                scan > 0.3, label, masks[row, top : top + 24, left : left + 24]
            )
            masks[row, top, left : left + 24] = -1
    labels = torch.from_numpy(boxes[:, 0, 5].astype(np.int64).clip(0))
    return torch.from_numpy(images), torch.from_numpy(boxes), torch.from_numpy(masks), labels


def _boxes(true: Tensor, images: Tensor, share: float) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    found, luck = true.clone(), torch.rand(true.shape[:2], generator=rng)
    there = found[..., 5] >= 0
    found[..., :4] += 0.06 * share * torch.randn(found[..., :4].shape, generator=rng)
    found[..., 4] = torch.where(there, 0.95 - 0.5 * luck, torch.zeros_like(luck))
    wrong = there & (luck < share)
    found[..., 5] = torch.where(wrong, (found[..., 5] + 1) % 3, found[..., 5])
    return torch.where((wrong & (luck < share / 2))[..., None], torch.tensor([0, 0, 0, 0, 0, -1.0]), found)


def _masks(true: Tensor, images: Tensor, share: float) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    luck = torch.rand((COUNT, SIDE // 8, SIDE // 8), generator=rng).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return torch.where(
        luck < share * torch.linspace(0, 1, COUNT)[:, None, None], 2 - true.clamp(min=0), true.clamp(min=0)
    )


def _vectors(true: Tensor, images: Tensor, share: float) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    noise = torch.randn((COUNT, 8), generator=rng)
    return torch.nn.functional.normalize((1 - share) * torch.eye(8)[true] + share * noise)


def _metrics(folder: Path, output_kind: str) -> dict[str, Any]:
    def figure(value: float, how: str) -> dict[str, Any]:
        return {"value": value, "ci95": [value - 0.05, value + 0.04], "n": COUNT, "how": how}

    found: dict[str, Any] = {"exports": []}
    about = WORDS[output_kind]
    for place, (name, share) in enumerate(SPOILT.items()):
        entry: dict[str, Any] = {about["headline"]: figure(0.9 - share / 2, f"{about['title']} of all test images")}
        for step, other in enumerate(FURTHER[output_kind]):
            entry[other] = figure(0.8 - share / 3 + 0.05 * step, f"how {other} was taken")
        if about["by_class"]:
            values = {label: 0.9 - share / 2 + 0.02 * index for index, label in enumerate(CLASSES)}
            entry[about["by_class"]] = {
                "value": values,
                "how": about["by_class_note"],
                "n_by_class": dict.fromkeys(CLASSES, 8),
            }
        if name != "teacher":
            entry["agreement"] = figure(0.7, "matched answers, weighted by score") | {"max_difference": 0.25}
        entry["latency_ms"] = {"value": 3.0 + place, "how": "timed"}
        if name in ("teacher", "baseline", "student"):
            found[name] = entry | {"macs": {"value": 4e6 if place else 9e7, "how": "counted"}}
        else:
            path = f"exports/student{'.int8' if name == 'onnx-8' else ''}.onnx"
            facts = {"target": "onnx", "bits": int(name[5:]), "path": path, "verified": True, "gate": 0.9}
            size = (folder / path).stat().st_size if (folder / path).is_file() else 0
            found["exports"].append(facts | entry | {"bytes": {"value": size, "how": "size of the file"}})
    return found


def _run(output_kind: str) -> dict[str, Any]:
    networks = {name: {"network": f"timm/{name}", "arguments": {}} for name in ("teacher", "student")}
    data = {"source": "scenes", "classes": list(CLASSES), "channels": 1, "size": SIDE, "test": COUNT}
    facts = {"name": f"scenes-{output_kind}", "status": "done", "exit_code": 0, "seeds": [0], "networks": networks}
    return facts | {
        "data": data,
        "task": WORDS[output_kind] | {"answers": output_kind},
        "hardware": {"cpu": "Two cores"},
    }


def export(folder: Path, output_kind: str) -> None:
    """Files that answer: one box around the whole image, twice; a class map of dark and light; the mean and 1 - it."""
    nodes, shape = {"boxes": _whole, "pixels": _levels, "vector": _mean}[output_kind]()
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    said = helper.make_tensor_value_info("said", TensorProto.FLOAT, shape)
    nodes, tensors = nodes
    graph = helper.make_graph(nodes, "student", [images], [said], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    for name in ("student.onnx", "student.int8.onnx"):
        onnx.save(made, folder / "exports" / name)


def _tensors(values: Mapping[str, Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _whole() -> tuple[Any, list[Any]]:
    held = {"two": np.array([2]), "zeros": np.zeros((1, 2), np.float32), "three": np.array([3]), "four": np.array([4])}
    held |= {
        "rest": np.array([[0.9, 1.0]], np.float32),
        "one": np.array([[[1.0], [0.1]]], np.float32).astype(np.float32),
    }
    held |= {"places": np.array([0]), "shape": np.array([1, 1, 6])}
    node = helper.make_node
    nodes = [
        node("Shape", ["images"], ["size"]),
        node("Slice", ["size", "three", "four", "places"], ["wide"]),
        node("Slice", ["size", "two", "three", "places"], ["high"]),
        node("Concat", ["wide", "high"], ["ends"], axis=0),
        node("Cast", ["ends"], ["floats"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["floats", "places"], ["far"]),
        node("Concat", ["zeros", "far", "rest"], ["flat"], axis=1),
        node("Reshape", ["flat", "shape"], ["box"]),
        node("Mul", ["box", "one"], ["said"]),
    ]
    return (nodes, _tensors(held)), [1, 2, 6]


def _levels() -> tuple[Any, list[Any]]:
    held = {
        "w": np.array([-1.0, 0.0, 1.0], np.float32).reshape(3, 1, 1, 1),
        "b": np.array([0.4, 0.1, -0.4], np.float32),
    }
    return ([helper.make_node("Conv", ["images", "w", "b"], ["said"])], _tensors(held)), ["batch", 3, "height", "width"]


def _mean() -> tuple[Any, list[Any]]:
    held = {"one": np.array([[1.0]], np.float32)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["left"]),
        helper.make_node("Sub", ["one", "left"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
        helper.make_node("LpNormalization", ["both"], ["said"], axis=1, p=2),
    ]
    return (nodes, _tensors(held)), ["batch", 2]
