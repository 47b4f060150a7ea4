"""From the benchmark's files to the tables that the docs print. Nothing is measured here, and nothing rounded up."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t as student_t

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
TITLES = {"cnn": "A ResNet teaches a ResNet", "vit": "A ViT teaches a ViT"}
COMMAND = "python benchmarks/methods.py {what} --cifar DIR --weights cifar10_resnet20.safetensors"


def results() -> str:
    """The page: every method under one budget, the untaught student among them."""
    found, cost = _read("methods.json"), _read("methods-cost.json")
    parts = [INTRODUCTION.format(**_setting(found, cost))]
    for setting, title in TITLES.items():
        facts = found["facts"][setting]
        student, teacher = (facts[f"{side}_macs"] / 1e6 for side in ("student", "teacher"))
        parts.append(
            f"## {title}\n\nThe teacher is right on {facts['teacher_accuracy']:.1%} of the test images; the student "
            f"has {student / teacher:.1%} of its MACs, {student:.2f} M of {teacher:.1f} M.\n"
        )
        parts.append(_table(setting, found["rows"], cost.get(setting, {})))
    for file in sorted(RESULTS.glob("methods-[0-9]*.json")):
        longer = _read(file.name)
        steps, setting = longer["facts"]["steps"], longer["rows"][0]["setting"]
        parts.append(LONGER.format(title=TITLES[setting], steps=steps, times=steps / found["facts"]["steps"]))
        parts.append(_table(setting, longer["rows"], {}))
    return "\n".join(parts)


def summary(name: str) -> list[str]:
    """What was measured of one method, a line a setting, for its section of the methods' page."""
    found, cost = _read("methods.json"), _read("methods-cost.json")
    lines = []
    for setting in TITLES:
        scores, untaught = _scores(found["rows"], setting, name), _scores(found["rows"], setting, "none")
        if scores:
            gain = [scores[seed] - untaught[seed] for seed in scores]
            beside = f"{_interval(gain, sign=True)} points beside the untaught student ({_verdict(gain)})"
            lines.append(f"{TITLES[setting]}: {beside}; a step costs {_ratio(cost, setting, name)} of Hinton's.")
    return lines


def ratio(setting: str, name: str) -> float:
    """The time of a step as a multiple of Hinton's, the median of the rounds."""
    return median(_read("methods-cost.json")[setting][name])


def measured(setting: str, name: str) -> bool:
    """Whether the cost of a step was."""
    return name in _read("methods-cost.json")[setting]


INTRODUCTION = """\
# What each method did

Every method under one budget: {steps} steps of {batch} images out of {images:,} of CIFAR-10, shown as they are; labels
at weight 1, the method at its own default weight, nothing tuned. Seeds {seeds}. The table compares what a user gets who
changes nothing; a method that was made for other networks, longer schedules or other weights can do better than here,
and a row that loses is left in.

*Accuracy* is the mean over the seeds on the 10,000 test images, in percent. *Beside untaught* is the mean difference
to the same student with the same seed and no teacher, in points, with its 95 % interval (paired, Student's t with
{freedom} degrees of freedom; three seeds make wide intervals, and of two dozen verdicts one or two are expected to be
chance). *Step* is the time of a training step with a live
teacher as a multiple of Hinton's: the median over {rounds} rounds in which all methods took turns, and in brackets the
middle half of them. *Memory* is the peak of a process that trains with that method alone, the libraries included.

{machine}

```text
{train}
{cost}
{memory}
```
"""


LONGER = """\
## {title}, {times:.0f} times as long

The same with `--steps {steps}`, for a few methods: what a longer schedule changes. Seeds and images are those above.
"""


def _setting(found: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    seeds = sorted({row["seed"] for row in found["rows"]})
    hardware = found["machine"]
    return found["facts"] | {
        "seeds": ", ".join(map(str, seeds)),
        "freedom": len(seeds) - 1,
        "rounds": cost["rounds"],
        "machine": f"{hardware['cpu']}, {hardware['cores']} cores, one thread a training, no accelerator.",
        "train": COMMAND.format(what="train"),
        "cost": COMMAND.format(what="cost"),
        "memory": COMMAND.format(what="memory"),
    }


def _table(setting: str, rows: list[dict[str, Any]], cost: dict[str, Any]) -> str:
    untaught = _scores(rows, setting, "none")
    names = {row["method"] for row in rows if row["setting"] == setting}
    lines = []
    for name in sorted(names, key=lambda name: -mean(_scores(rows, setting, name).values())):
        scores = _scores(rows, setting, name)
        gain = [scores[seed] - untaught[seed] for seed in scores]
        beside = f"{_interval(gain, sign=True)} | {_verdict(gain)}" if name != "none" else " | "
        shown = f"[{name}](methods.md#{name.partition('-')[0]})" if name != "none" else "**no distillation**"
        accuracy = 100 * mean(scores.values())
        memory = _read("methods-memory.json")[setting].get(name, "") if cost else ""
        lines.append(f"| {shown} | {accuracy:.1f} | {beside} | {_ratio({setting: cost}, setting, name)} | {memory} |")
    head = "| method | accuracy | beside untaught | verdict | step | memory, MB |\n|---|---:|---:|---|---:|---:|"
    return head + "\n" + "\n".join(lines) + "\n"


def _scores(rows: list[dict[str, Any]], setting: str, name: str) -> dict[int, float]:
    return {row["seed"]: row["accuracy"] for row in rows if (row["setting"], row["method"]) == (setting, name)}


def _half(values: list[float]) -> float:
    """Half the 95 % interval of a mean."""
    return float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))


def _interval(values: list[float], *, sign: bool = False) -> str:
    middle, half = 100 * mean(values), 100 * _half(values)
    form = "{:+.1f} ({:+.1f} to {:+.1f})" if sign else "{:.1f} ({:.1f} to {:.1f})"
    return form.format(middle, middle - half, middle + half)


def _verdict(gain: list[float]) -> str:
    middle, half = mean(gain), _half(gain)
    if abs(middle) > half:
        return "**loses**" if middle < 0 else "helps"
    return "loses, within the noise" if middle < 0 else "helps, within the noise"


def _ratio(cost: dict[str, Any], setting: str, name: str) -> str:
    values = sorted(cost.get(setting, {}).get(name, []))
    if not values:
        return ""
    quarter = len(values) // 4
    return f"{median(values):.2f} ({values[quarter]:.2f} to {values[-1 - quarter]:.2f})"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found
