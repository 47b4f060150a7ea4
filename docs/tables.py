"""From the benchmark's files to the tables that the docs print. Nothing is measured here, and nothing rounded up."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from stillroom.report.multi_seed import ci_half_width

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
MEASURED_AS = {"localisation": "ld", "pairwise": "skd", "regress": "simreg"}
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


def _interval(values: list[float], *, sign: bool = False) -> str:
    middle, reach = 100 * mean(values), 100 * ci_half_width(values)
    form = "{:+.1f} ({:+.1f} to {:+.1f})" if sign else "{:.1f} ({:.1f} to {:.1f})"
    return form.format(middle, middle - reach, middle + reach)


def _verdict(gain: list[float]) -> str:
    middle, reach = mean(gain), ci_half_width(gain)
    if middle == reach == 0:
        return "the same"
    if abs(middle) > reach:
        return "**loses**" if middle < 0 else "helps"
    return "loses, within the noise" if middle < 0 else "helps, within the noise"


def _ratio(cost: dict[str, Any], setting: str, name: str) -> str:
    values = sorted(cost.get(setting, {}).get(name, []))
    if not values:
        return ""
    quarter = len(values) // 4
    return f"{median(values):.2f} ({values[quarter]:.2f} to {values[-1 - quarter]:.2f})"


def _read(name: str) -> Any:
    """A file of results, with today's names of methods that were measured under another one."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"), object_hook=_with_todays_names)


def _with_todays_names(table: dict[str, Any]) -> dict[str, Any]:
    found = {MEASURED_AS.get(key, key): value for key, value in table.items()}
    return found | {"methods": [MEASURED_AS.get(one, one) for one in found["methods"]]} if "methods" in found else found


TASKS = """\
# What each task's recipe came to

The three recipes below, with seeds 0 to 2, on the images and weights that their pages name. *Teacher*, *untaught* and
*student* are means over the seeds on the test images, in percent, with the lowest and the highest seed in brackets.
The *gain* is the student's over the same student with the same seed and no teacher, in points, with the 95 % interval
of its mean (paired, Student's t with two degrees of freedom, so wide). Where labels teach nothing, *untaught*
is the student as it was before training: a random network. Figures of the files are from their own runtime.

{machine} One thread a training, two or three trainings and other work side by side, so the minutes are upper bounds.

```text
stillroom run bccd-detection 'seeds=[0,1,2]' data.path=bccd \\
    teacher.weights=mobilenetv2_100_same.tf2_in1k.fp16.safetensors teacher.pad_type=same
stillroom run camvid-segmentation 'seeds=[0,1,2]' data.path=camvid \\
    teacher.weights=mobilenetv2_100_same.tf2_in1k.fp16.safetensors teacher.pad_type=same
stillroom run flowers-embedding 'seeds=[0,1,2]' data.path=flowers224 \\
    teacher.weights=deit_tiny_patch16_224.in1k.fp16.safetensors
python benchmarks/tasks.py runs/bccd-detection runs/camvid-segmentation runs/flowers-embedding
```
"""


def tasks() -> str:
    """The page: detection, segmentation and embedding over three seeds, each with its files."""
    found = _read("tasks.json")
    hardware, versions = found[0]["hardware"], found[0]["versions"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, no accelerator; torch {versions['torch']}."
    parts = [TASKS.format(machine=machine)]
    for name in dict.fromkeys(row["recipe"] for row in found):
        parts.append(_task(name, [row for row in found if row["recipe"] == name]))
    return "\n".join(parts)


def _task(name: str, rows: list[dict[str, Any]]) -> str:
    first, task = rows[0], rows[0]["task"]
    n = first["figures"]["student"][task["headline"]].get("n", "")
    macs = [first["figures"][side]["macs"]["value"] for side in ("student", "teacher")]
    minutes = [row["minutes"] for row in rows]
    lines = [
        f"## {name}\n",
        f"`{first['student']}` ({100 * macs[0] / macs[1]:.1f} % of the MACs) from `{first['teacher']}`, by "
        f"{' + '.join(first['methods'])}; {n} test images; at most {max(minutes):.1f} minutes a seed, everything "
        "included.\n",
        "| figure | teacher | untaught | student | gain | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [_across(figure, title, rows) for figure, title in _shares(first)]
    lines += ["", "| file | verified | agreement | " + task["title"] + " | size |", "|---|---|---:|---:|---:|"]
    lines += [_file(bits, task["headline"], rows) for bits in (32, 8)]
    return "\n".join(lines) + "\n"


def _shares(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures in 0..1 that all three networks have, the headline first."""
    task, sides = row["task"], row["figures"].values()
    names = [name for name in row["figures"]["student"] if all(name in side for side in sides)]
    shares = [name for name in names if all(_is_share(side[name]["value"]) for side in sides)]
    names = [task["headline"], *(name for name in shares if name != task["headline"])]
    return [(name, task["title"] if name == task["headline"] else name.replace("_", " ")) for name in names]


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _across(figure: str, title: str, rows: list[dict[str, Any]]) -> str:
    names = ("teacher", "baseline", "student")
    sides = [[100 * row["figures"][name][figure]["value"] for row in rows] for name in names]
    cells = [f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" for values in sides]
    gain = [(taught - untaught) / 100 for taught, untaught in zip(sides[2], sides[1], strict=True)]
    return f"| {title} | {' | '.join(cells)} | {_interval(gain, sign=True)} | {_verdict(gain)} |"


def _file(bits: int, headline: str, rows: list[dict[str, Any]]) -> str:
    files = [one for row in rows for one in row["exports"] if one["bits"] == bits]
    kind, passed = {32: "float", 8: "int8"}[bits], sum(one["verified"] for one in files)
    agreed = [100 * one["agreement"]["value"] for one in files]
    value, size = [100 * one[headline]["value"] for one in files], mean(one["bytes"]["value"] for one in files)
    gate = 100 * files[0]["gate"]
    return (
        f"| {kind} | {passed} of {len(files)} | {min(agreed):.1f} to {max(agreed):.1f} (gate {gate:.1f}) | "
        f"{mean(value):.1f} ({min(value):.1f} to {max(value):.1f}) | {size / 1e3:,.0f} kB |"
    )
