"""From the compression benchmark's file to docs/compressions.md. Nothing is measured here, and nothing rounded up."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "compress.json"

INTRODUCTION = """\
# Smaller than the student

A small architecture is one way to be fast. Others make a trained student smaller: fewer channels, thinner factors,
fewer bits. They cost accuracy, and the teacher gives most of it back, so each `[[compress]]` is followed by a training
with the same teacher and the same methods, from the same cache of answers.

```toml
[[compress]]
name = "prune"
macs = 0.5               # half of the multiply-accumulates stay

[compress.train]
epochs = 10              # left out: a third of [train]'s

[[compress]]
name = "quantize"        # rounding while it learns; the int8 file then holds the very same integers
```

<!-- slow -->
```bash
stillroom list compress                       # what there is
stillroom run digits compress=quantize name=digits-int8 train.epochs=2 teacher.train.epochs=2
```

They go in any order and any number. Each leaves a file in the run's folder (`distilled.safetensors` before the first,
`prune.safetensors` and so on between, `student.safetensors` at the end), says in `run.json` and the report what it came
to (score on val, MACs, bytes, latency), and is resumed where it was interrupted. The report shows every one of them on
the test images, beside the teacher and the same student untaught. `distill = false` trains one by the labels alone, to
see what the teacher is worth there. Your own is a class: `name = "package.module:Name"`, see
`stillroom/compress/compression.py`.

A pruned or factorised network has another form than its library builds, so plain timm can't load it. The file's
metadata tell the form as JSON, and Stillroom goes by it: `student.weights = "runs/NAME/student.safetensors"` begins
another run with it, `stillroom.open("runs/NAME").student` opens it. Exported files need nothing.

`quantize` works on weights that stay floats and lie on the grid of the integers: one scale for an output channel,
symmetric, no zero point. Folding a batch norm scales a channel as a whole, so the grid survives it, and each runtime's
own quantiser finds the same integers again. Only the ranges of activations are each runtime's own, from 256 training
images. Layers in `keep` stay in floats in every file.
"""

ENDS = {
    "float": "int8, of the distilled student, not pruned",
    "chain": "int8, trained with rounding and the teacher",
    "qat": "int8, trained with rounding, by the labels alone",
    "ptq-longer": "int8, trained as long without rounding, then rounded",
    "ptq": "int8, rounded after pruning, no training",
}
RUNTIMES = {"onnx": "onnxruntime", "openvino": "OpenVINO", "executorch": "ExecuTorch", "litert": "LiteRT"}

PAGE = """\
# What it came to

CIFAR-10, 25,000 training and 10,000 test images, a resnet56 as it comes and a resnet20; recipe `edge`: {recipe}.
Seeds {seeds}; {machine}. Times are of one image on one thread, each file in a process of its own, as on
a device, in rounds of all files of a seed; ratios are of two in the same round, medians over rounds, then over seeds.
Rounds in which a file's times were not steady (spread above 10 %, or drifting) are left out; where none remains, the
figure is marked ~ and claims nothing.

```text
python benchmarks/compress.py --data DIR --weights cifar10_resnet56.safetensors --work runs/compress
```
"""


def results() -> str:
    """The tables; a line that says so where nothing has been measured."""
    if not RESULTS.is_file():
        return ""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    return "\n".join([PAGE.format(**_setting(rows)), _networks(rows), _rounding(rows), _runtimes(rows)])


def _setting(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    seeds = sorted({row["seed"] for row in rows})
    hardware, versions = first["hardware"], first["versions"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, torch {versions['torch']}"
    trail = next(row["trail"] for row in rows if row["end"] == "chain")
    return {
        "recipe": "; then ".join(step["what"] for step in trail),
        "seeds": ", ".join(map(str, seeds)),
        "machine": f"{machine}, onnxruntime {versions['onnxruntime']}",
    }


def _of(rows: list[dict[str, Any]], what: str, end: str = "chain") -> dict[int, dict[str, Any]]:
    """Seed -> row."""
    return {row["seed"]: row for row in rows if row["end"] == end and row["what"] == what}


def _accuracy(found: dict[int, dict[str, Any]]) -> str:
    values = [100 * row["accuracy"] for row in found.values()]
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _ratio(above: dict[int, dict[str, Any]], below: dict[int, dict[str, Any]]) -> str:
    """Times of one by times of the other; empty where one of them was not timed."""
    found, all_steady = [], True
    for seed in above.keys() & below.keys():
        one, other = above[seed], below[seed]
        if "rounds_ms" in one and "rounds_ms" in other:
            rounds = list(zip(one["rounds_ms"], other["rounds_ms"], one["steady"], other["steady"], strict=True))
            steady = [a / b for a, b, fine, good in rounds if fine and good]
            all_steady &= bool(steady)
            found.append(median(steady or [a / b for a, b, _, _ in rounds]))
    return f"{'' if all_steady else '~'}{median(found):.2f}" if found else ""


def _points(found: dict[int, dict[str, Any]], than: dict[int, dict[str, Any]]) -> str:
    """Percentage points ahead of the same seed's other row."""
    values = [100 * (found[seed]["accuracy"] - than[seed]["accuracy"]) for seed in found if seed in than]
    spread = f" ({min(values):+.2f} to {max(values):+.2f})" if len(values) > 1 else ""
    return f"{mean(values):+.2f}{spread}" if values else ""


def _networks(rows: list[dict[str, Any]]) -> str:
    """The chain, stage by stage."""
    named = {"teacher": "teacher", "baseline": "untaught", "distilled": "distilled", "prune": "pruned, taught"}
    named |= {"student": "rounded, taught: the student"}
    distilled = _of(rows, "distilled")
    lines = [
        "## The chain\n",
        "| network | accuracy % | points beside distilled | M MACs | thousand parameters |",
        "|---|---:|---:|---:|---:|",
    ]
    for what, title in named.items():
        if found := _of(rows, what):
            one = next(iter(found.values()))
            beside = "" if what == "distilled" else _points(found, distilled)
            lines.append(
                f"| {title} | {_accuracy(found)} | {beside} | {one['macs'] / 1e6:.2f} | {one['parameters'] / 1e3:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _rounding(rows: list[dict[str, Any]]) -> str:
    """Files of onnxruntime: the ends of the chain."""
    distilled = _of(rows, "distilled")
    lines = [
        "## What rounding costs\n",
        "Files of the ends of the same chain, on onnxruntime. Accuracy is the file's own, on all test images; `agrees` "
        "is with the network it was made of. Bytes and speed are beside the distilled float file's.\n",
        "| file | accuracy % | points beside distilled | agrees % | verified | kB | bytes | times as fast |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    plain = _of(rows, "onnx-32", "float")
    for end, bits, title in (("float", 32, "distilled, float"), *((end, 8, title) for end, title in ENDS.items())):
        if found := _of(rows, f"onnx-{bits}", end):
            agrees = mean(100 * row["agreement"] for row in found.values())
            passed = f"{sum(row['verified'] for row in found.values())} of {len(found)}"
            size = mean(row["bytes"] for row in found.values()) / 1e3
            accuracy, beside = _accuracy(found), _points(found, distilled)
            share = mean(row["bytes"] / plain[seed]["bytes"] for seed, row in found.items())
            cells = [
                accuracy,
                beside,
                f"{agrees:.2f}",
                passed,
                f"{size:.0f}",
                f"{share:.1%}",
                _ratio(plain, found),
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _runtimes(rows: list[dict[str, Any]]) -> str:
    """One student in every runtime."""
    lines = [
        "## One student, four runtimes\n",
        "The chain's student, exported by each. `agrees` is with the student in torch, on all test images; the last "
        "column is its time by that of onnxruntime's float file.\n",
        "| file | agrees % | accuracy % | verified | kB | ms | beside onnxruntime, float |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    base = _of(rows, "onnx-32")
    for target, title in RUNTIMES.items():
        for bits, words in ((32, "float"), (8, "int8")):
            if found := _of(rows, f"{target}-{bits}"):
                agrees = min(100 * row["agreement"] for row in found.values())
                passed = f"{sum(row['verified'] for row in found.values())} of {len(found)}"
                size = mean(row["bytes"] for row in found.values()) / 1e3
                pairs = [pair for row in found.values() for pair in zip(row["rounds_ms"], row["steady"], strict=True)]
                times = [time for time, steady in pairs if steady]
                shown = f"{median(times):.3f}" if times else f"~{median(time for time, _ in pairs):.3f}"
                lines.append(
                    f"| {title}, {words} | {agrees:.2f} | {_accuracy(found)} | {passed} | {size:.0f} | "
                    f"{shown} | {_ratio(found, base)} |"
                )
    return "\n".join(lines) + "\n"
