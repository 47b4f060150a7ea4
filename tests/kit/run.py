"""A run folder of real digits with real figures: scikit-learn's networks stand in for torch's.

The student is really taught: it is fitted to the teacher's logits on the same images as its untaught baseline.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor

from kit.onnx_files import Says, export
from stillroom.metrics.measurement import wilson

CLASSES = [str(digit) for digit in range(10)]
EPOCHS = {"teacher": 25, "baseline": 40, "student": 40}
WIDTH = {"teacher": 128, "baseline": 14, "student": 14}
RECIPE = """seeds = [0]
[data]
source = "digits"
[teacher]
network = "resnet20"
width = 2.0
[student]
network = "resnet8"
width = 0.5
[[methods]]
name = "hinton"
temperature = 4.0
weight = 0.9
[train]
epochs = 60
batch = 64
lr = 2e-3
"""


def make(folder: Path) -> Path:
    """Fill `folder` as `stillroom demo` would."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    rest, test, rest_y, test_y = train_test_split(images, labels, test_size=450, stratify=labels, random_state=0)
    train, val, train_y, val_y = train_test_split(rest, rest_y, test_size=200, stratify=rest_y, random_state=0)
    (folder / "exports").mkdir(parents=True)
    (folder / "samples").mkdir()

    steps, evals = [], []
    teacher = MLPClassifier((128,), learning_rate_init=2e-3, batch_size=64, random_state=0)
    baseline = MLPClassifier((14,), learning_rate_init=2e-3, batch_size=64, random_state=0)
    student = MLPRegressor(hidden_layer_sizes=(14,), learning_rate_init=4e-3, batch_size=64, random_state=0, alpha=0)
    targets = {"teacher": train_y, "baseline": train_y}
    models: dict[str, Any] = {"teacher": teacher, "baseline": baseline, "student": student}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for stage, model in models.items():
            if stage == "student":
                targets["student"] = _standard(_logits(models["teacher"])(train))
            for epoch in range(EPOCHS[stage]):
                extra = {"classes": np.arange(10)} if stage != "student" and epoch == 0 else {}
                model.partial_fit(train, targets[stage], **extra)
                steps += _steps(stage, epoch, model, train, train_y, _logits(models["teacher"]))
                found = float((_logits(model)(val).argmax(1) == val_y).mean())
                evals.append(
                    {"stage": stage, "step": len(train) // 64 * (epoch + 1), "split": "val", "accuracy": found}
                )
    says = {name: _logits(model) for name, model in models.items()}
    says |= dict(export(folder, models["student"]))
    weights = {f"{layer}.weight": np.ascontiguousarray(part.T) for layer, part in enumerate(models["student"].coefs_)}
    about = {"classes": "10", "channels": "1", "mean": "0.0", "std": "1.0"}
    save_file(weights, folder / "student.safetensors", about)
    _lines(folder / "steps.jsonl", steps)
    _lines(folder / "evals.jsonl", evals)
    _json(folder / "metrics.json", _metrics(folder, says, test, test_y))
    _probe(folder, says, test, test_y)
    (folder / "recipe.toml").write_text(RECIPE)
    _json(folder / "run.json", _run(train, val, test))
    return folder


def _logits(model: Any) -> Says:
    if isinstance(model, MLPRegressor):
        return lambda images: 4 * model.predict(images).reshape(len(images), -1)
    return lambda images: np.log(model.predict_proba(images) + 1e-9)


def _standard(logits: np.ndarray) -> np.ndarray:
    return (logits - logits.mean(1, keepdims=True)) / 4


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _steps(stage: str, epoch: int, model: Any, train: np.ndarray, labels: np.ndarray, teacher: Says) -> list[dict]:
    """Losses of real batches with the weights at the end of the epoch."""
    count, total = len(train) // 64, len(train) // 64 * EPOCHS[stage]
    logits, goal = _logits(model)(train), _softmax(teacher(train) / 4)
    ce = -np.log(_softmax(logits)[np.arange(len(train)), labels] + 1e-9)
    kl = 16 * (goal * (np.log(goal + 1e-9) - np.log(_softmax(logits / 4) + 1e-9))).sum(1)
    found = []
    for index in range(count):
        rows, step = slice(index * 64, index * 64 + 64), epoch * count + index + 1
        terms = {"task/ce": float(ce[rows].mean())}
        weights = {"task": 1.0}
        if stage == "student":
            terms["hinton/kl"], weights = float(kl[rows].mean()), {"task": 0.1, "hinton": 0.9}
        rate = 2e-3 * min(1, step / 100) * 0.5 * (1 + np.cos(np.pi * step / total))
        loss = sum(weights[name.split("/")[0]] * value for name, value in terms.items())
        line = {"stage": stage, "step": step, "loss": loss, "terms": terms, "weights": weights, "lr": rate}
        found.append(line | {"grad_norm": 1.0, "seconds": 0.01, "skipped": False})
    return found


def _metrics(folder: Path, says: dict[str, Says], test: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    answers = {name: say(test).argmax(1) for name, say in says.items()}
    found: dict[str, Any] = {"exports": []}
    for name, say in says.items():
        right = answers[name] == labels
        entry = {"accuracy": _share(right, "top-1 accuracy on the test split, read once"), **_speed(say, test)}
        if name in WIDTH:
            entry["recall"] = {
                "value": {key: float(right[labels == index].mean()) for index, key in enumerate(CLASSES)},
                "how": "share of each class's test images that were recognised",
                "n": len(labels),
            }
            size = WIDTH[name] * 64 + WIDTH[name] * 10
            entry["parameters"] = {"value": size + WIDTH[name] + 10, "how": "elements of all parameters"}
            entry["macs"] = {"value": size, "how": "torch's flop counter on one image, halved"}
            entry["bytes"] = {"value": 4 * (size + WIDTH[name] + 10), "how": "size of the safetensors file"}
            if name != "teacher":
                entry["agreement"] = _share(answers[name] == answers["teacher"], "same first answer as the teacher")
            found[name] = entry
            continue
        path = "exports/student.onnx" if name == "onnx-32" else "exports/student.int8.onnx"
        entry |= {"target": "onnx", "bits": int(name[5:]), "path": path, "verified": True}
        entry["bytes"] = {"value": (folder / path).stat().st_size, "how": "size of the file"}
        entry["agreement"] = _share(answers[name] == answers["student"], "same first answer as the torch student")
        gap = np.abs(_softmax(say(test)) - _softmax(says["student"](test))).max()
        entry["max_difference"] = {"value": float(gap), "how": "largest difference of a probability"}
        found["exports"].append(entry)
    return found


def _share(hits: np.ndarray, how: str) -> dict[str, Any]:
    ends = wilson(int(hits.sum()), len(hits))
    return {"value": float(hits.mean()), "ci95": list(ends), "n": len(hits), "how": f"{how}; 95 % Wilson interval"}


def _speed(say: Says, test: np.ndarray) -> dict[str, Any]:
    times = []
    for row in range(60):
        start = time.perf_counter()
        say(test[row : row + 1])
        times.append(1e3 * (time.perf_counter() - start))
    middle, tail = np.percentile(times[10:], [50, 95])
    how = "50 runs of one image after 10 of warm-up, 2 threads, all models in turn"
    return {
        "latency_ms": {"value": float(middle), "how": how, "n": 50, "stable": bool(tail < 2 * middle)},
        "latency_p95_ms": {"value": float(tail), "how": how, "n": 50},
        "throughput": {"value": 1e3 / float(np.mean(times[10:])), "how": "images a second, batches of one"},
    }


def _probe(folder: Path, says: dict[str, Says], test: np.ndarray, labels: np.ndarray) -> None:
    logits = {name: say(test) for name, say in says.items()}
    images = []
    for row, pixels in enumerate(test[:256]):
        file = f"{row:04d}.png"
        Image.fromarray((pixels.reshape(8, 8) * 255).astype(np.uint8)).save(folder / "samples" / file)
        said = {name: [float(value) for value in rows[row]] for name, rows in logits.items()}
        named = {name: int(np.argmax(rows)) for name, rows in said.items()}
        images.append(
            {
                "file": file,
                "name": f"digits/{row:04d}",
                "key": row,
                "truth": {"class": int(labels[row])},
                "answers": {name: {"logits": rows} for name, rows in said.items()},
                "scores": {name: float(label == labels[row]) for name, label in named.items()},
                "apart": {name: float(named[name] != named["student"]) for name in named if name not in WIDTH},
            }
        )
    _json(folder / "samples" / "probe.json", {"classes": CLASSES, "images": images})


def _run(train: np.ndarray, val: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    def network(name: str, width: float) -> dict[str, Any]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {"network": name, "arguments": {"width": width}, "weights": "trained here", "sha256": digest}

    return {
        "name": "digits-demo",
        "status": "done",
        "exit_code": 0,
        "resumable": False,
        "last_step": 960,
        "stage": "student",
        "started": "2026-01-05T09:30:12+00:00",
        "seconds": 92.4,
        "stages": {name: {"seconds": 20.5 + steps, "steps": 17 * steps} for name, steps in EPOCHS.items()},
        "seeds": [0],
        "command": "stillroom demo",
        "versions": {"stillroom": "0.1.0", "python": "3.12.4", "torch": "2.14.1", "onnxruntime": "1.23.0"},
        "hardware": {"cpu": "Two cores of something", "cores": 2, "memory_gb": 8, "device": "cpu"}
        | {"precision": "bfloat16", "threads": 2, "processes": 1},
        "data": {"source": "digits", "classes": CLASSES, "channels": 1, "size": 8, "bad": 0}
        | {"train": len(train), "val": len(val), "test": len(test), "fingerprint": hashlib.sha256(train).hexdigest()},
        "networks": {"teacher": network("resnet20", 2.0), "student": network("resnet8", 0.5)},
        "warnings": ["bfloat16 is emulated on this processor: training takes longer than with float32"],
    }


def _lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
