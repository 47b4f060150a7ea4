"""From the throughput benchmark's file to docs/throughput.md. Nothing is measured here, and nothing rounded up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "throughput.json"

TITLES = {
    "bare": "a bare loop, the student alone: the limit",
    "untaught": "**Stillroom**, no teacher",
    "live": "**Stillroom**, live teacher",
    "cached": "**Stillroom**, cached teacher",
    "torchdistill": "torchdistill, live teacher",
    "timm": "timm, live teacher",
}
BESIDE = ("bare", "untaught", "torchdistill")
PRECISIONS = {"auto": "The precision that `auto` finds here", "float32": "All in float32"}
ELSEWHERE = ("torchdistill",)  # computes in float32 alone, and is shown beside the others all the same

GOALS = (
    ("untaught", "bare", 0.95),
    ("cached", "untaught", 0.95),
    ("live", "torchdistill", 1.0),
    ("cached", "torchdistill", 4.0),
)
CACHE_GOALS = (("build", 0.9), ("read", 20.0))

QUIET = 0.5  # load before the benchmark began
TRIAL = "**The machine was busy: this is a trial of the benchmark, and no result.** "

PAGE = """\
# How fast it trains

A resnet56 teaches a resnet20 on CIFAR-10, {images:,} images, batches of {batch}. All have the same decoded images in
memory, shifts of up to 4 pixels and mirroring, the same networks, loss (labels 1, Hinton 0.9 at temperature 4) and
optimiser (SGD with momentum), and as many threads as cores, {threads}. Each contestant runs in a process of its own,
one after the other, {rounds} rounds of {steps} steps after {warmup} to warm up, seed {seed}; every ratio is of two in
the same round. Figures are medians over the rounds, in brackets the lowest and the highest.

{machine}

```text
python benchmarks/throughput.py --data DIR --weights cifar10_resnet56.safetensors
```

What stands in the way of a plain comparison:

- A step of Stillroom's holds all that `stillroom run` does in one: clipping, the average of the weights, a line in the
  log. Looks at the val split and checkpoints come on top, with everybody. The bare loop does nothing of that.
- torchdistill has no mixed precision of its own, so it computes in float32 in both tables; it and its examples do not
  use channels-last. It runs from a YAML file as its own are, with {workers_torchdistill} worker processes for the data,
  which was the faster of {tried_torchdistill}. Its teacher is put into inference mode, which its examples leave out.
- timm runs as with `--channels-last`, and with `--amp --amp-dtype bfloat16` where the table is not float32; with
  {workers_timm} workers, the faster of {tried_timm}. Its crop is exchanged for the one that DeiT gives small images.
- Both read the images one by one through Pillow, as their loaders do, the bare loop and Stillroom in whole batches.
"""


def page() -> str:
    """Images a second of all contestants, the cache beside the teacher, and what was hoped for."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    parts = [PAGE.format(**_setting(found))]
    for kind, title in PRECISIONS.items():
        if kind in found["rates"]:
            parts.append(f"## {title}\n\n{contest(together(found['rates'], kind))}\n{_same(found['losses'].get(kind))}")
    if found["caches"]:
        parts.append(f"## The cache\n\n{CACHE}\n{caches(found['caches'])}")
    parts.append(f"## What was to be reached\n\n{goals(found)}")
    return "\n".join(parts)


CACHE = """\
Filled in turns with the bare forward pass of the teacher on batches that lie ready, a shard at a time; read in a random
order, a batch at a time, checksums included, while the system still holds the files in memory.
"""


def together(rates: dict[str, dict[str, list[float]]], kind: str) -> dict[str, list[float]]:
    """Contestant -> its rates, of one precision; and of those who have only the other."""
    others = {who: found for who, found in rates.get("float32", {}).items() if who in ELSEWHERE}
    both = others | rates[kind]
    return {who: both[who] for who in TITLES if who in both}


def contest(rates: dict[str, list[float]]) -> str:
    """A row a contestant."""
    beside = [name for name in BESIDE if name in rates]
    heads = ["", "images a second", *(f"beside {name}" for name in beside)]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|" + "---:|" * len(beside)]
    for who, found in rates.items():
        ratios = ["" if who == name else spread(ratios_of(found, rates[name])) for name in beside]
        lines.append(f"| {' | '.join([TITLES[who], spread(found, '{:,.0f}'), *ratios])} |")
    return "\n".join(lines) + "\n"


def caches(found: dict[str, dict[str, Any]]) -> str:
    """A row a precision."""
    lines = [
        "| precision | answers | MB | forward, images a second | filled at | read at |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, one in found.items():
        ratios = [f"{spread(ratios_of(one[what], one['forward']))} × it" for what in ("build", "read")]
        size = f"{one['answers']:,} | {one['bytes'] / 1e6:.1f}"
        lines.append(f"| {kind} | {size} | {spread(one['forward'], '{:,.0f}')} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def goals(found: dict[str, Any]) -> str:
    """What issue and design asked for, and whether the median is there."""
    lines = ["| goal | " + " | ".join(found["rates"]) + " |", "|---|" + "---|" * len(found["rates"])]
    for who, other, least in GOALS:
        cells = []
        for kind in found["rates"]:
            rates = together(found["rates"], kind)
            cells.append(_verdict(ratios_of(rates[who], rates[other]), least) if {who, other} <= rates.keys() else "")
        lines.append(f"| {who} at least {least:g} × {other} | {' | '.join(cells)} |")
    for what, least in CACHE_GOALS:
        ones = [found["caches"].get(kind) for kind in found["rates"]]
        cells = [_verdict(ratios_of(one[what], one["forward"]), least) if one else "" for one in ones]
        name = {"build": "a cache is filled", "read": "a cache is read"}[what]
        lines.append(f"| {name} at {least:g} × the forward pass or faster | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ratios_of(above: list[float], below: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """The median, the lowest and the highest."""
    shown = [form.format(_down(value, form)) for value in (median(values), min(values), max(values))]
    return "{} ({} to {})".format(*shown)


def _down(value: float, form: str) -> float:
    """Cut off rather than rounded, so that 0.949 is not shown as 0.95."""
    places = 0 if form.endswith("0f}") else 2
    return math.floor(value * 10**places + 1e-9) / 10**places


def _verdict(ratios: list[float], least: float) -> str:
    middle = median(ratios)
    return f"{_down(middle, '{:.2f}'):.2f}: {'reached' if middle >= least else '**missed**'}"


def _same(loss: dict[str, Any] | None) -> str:
    if not loss:
        return ""
    apart = (
        f"no step's are further apart than {loss['worst']:.1g} of the loss" if loss["worst"] else "so are all before"
    )
    return (
        f"After {loss['steps']} steps from the same weights the loss is {loss['live']:.4f} with the live teacher and "
        f"{loss['cached']:.4f} with the cached one, whose answers are kept in 16 bits; {apart}.\n"
    )


def _setting(found: dict[str, Any]) -> dict[str, Any]:
    hardware, versions = found["machine"], found["versions"]
    on = "no accelerator, so the figures are a CPU's" if hardware["device"] == "cpu" else hardware["device"]
    names = [f"{name} {versions[name]}" for name in ("torch", "timm", "torchdistill") if name in versions]
    busy = f"; load before it began {hardware['load_before']:.1f}"
    trial = TRIAL if hardware["load_before"] > QUIET else ""
    said = {"machine": trial + f"{hardware['cpu']}, {hardware['cores']} cores, {on}; {', '.join(names)}{busy}."}
    for who in ("torchdistill", "timm"):
        tried = found["workers"].get(who, {"0": 0.0})
        said |= {f"workers_{who}": max(tried, key=tried.__getitem__), f"tried_{who}": " and ".join(tried)}
    return said | found["settings"]
