"""Measures one file where it is to run. Stands alone: numpy and the one runtime are all it needs.

    python device.py --opener opener.py --file student.onnx --images images.npy --threads 1 --seconds 4 --warmup 5

It is copied to the device as it is (see `remote`), so it imports nothing of this package and keeps to Python 3.9. The
opener, which is copied too, holds `on_device` of a `Runtime`. One JSON object is printed; all that runtimes print goes
to stderr. A package that is missing is named in the object: `missing`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from runpy import run_path
from typing import Any

BATCH, MOST = 32, 20_000
"""Images in a call for the throughput, and the most calls that are timed."""

CPUS, POWERCAP = Path("/sys/devices/system/cpu"), Path("/sys/class/powercap")

Found = dict[str, Any]


def read_text(path: Path) -> str:
    """The content of a file; empty where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def read_numbers(root: Path, pattern: str) -> list[int]:
    """The whole numbers in all files that are there and can be read."""
    return [int(one) for one in map(read_text, sorted(root.glob(pattern))) if one.lstrip("-").isdigit()]


def energy_counters(root: Path = POWERCAP) -> dict[str, tuple[int, int]]:
    """RAPL: domain -> (microjoules so far, microjoules at which it wraps around). Empty where they can't be read.

    Since 2020 only root may read them. Packages and memories only: cores and graphics are parts of a package, and
    `psys` holds the package a second time.
    """
    found = {}
    for folder in sorted(root.glob("intel-rapl:*")):
        name, now, top = (read_text(folder / part) for part in ("name", "energy_uj", "max_energy_range_uj"))
        if (name.startswith("package") or name == "dram") and now.isdigit() and top.isdigit():
            found[folder.name] = (int(now), int(top))
    return found


def joules_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Joules between two readings, in which each counter may have wrapped around once; None without any counter."""
    shared = before.keys() & after.keys()
    if not shared:
        return None
    return sum((after[name][0] - before[name][0]) % (before[name][1] + 1) for name in shared) / 1e6


def memory(*, forget: bool = False) -> dict[str, int]:
    """Bytes of this process: `now` (VmRSS) and at most so far, `peak` (VmHWM). Empty where the system has none.

    With `forget`, the peak is what is held now, from here on.
    """
    if forget:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    names = {"VmRSS:": "now", "VmHWM:": "peak"}
    lines = [line.split() for line in read_text(Path("/proc/self/status")).splitlines()]
    return {names[words[0]]: int(words[1]) * 1024 for words in lines if words and words[0] in names}


def clock(cpus: Path = CPUS, zones: Path = Path("/sys/class/thermal")) -> Found:
    """What is readable of: mean `khz` of all cores, how often they were `throttled` for heat, `celsius` at most."""
    speeds = read_numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq")
    slowed = read_numbers(cpus, "cpu[0-9]*/thermal_throttle/*throttle_count")
    heat = read_numbers(zones, "thermal_zone*/temp")
    found: Found = {"khz": sum(speeds) // len(speeds)} if speeds else {}
    found |= {"throttled": sum(slowed)} if slowed else {}
    return found | ({"celsius": max(heat) / 1000} if heat else {})


def pin(threads: int, root: Path = CPUS) -> list[int]:
    """Keep this process on as many cores as it has threads, the fastest; which they are. Empty where that can't be.

    On a processor with small and large cores a thread that wanders has two speeds.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []

    def order(core: int) -> tuple[int, int]:
        here = root / f"cpu{core}"
        return -max(
            read_numbers(here, "cpu_capacity") + read_numbers(here, "cpufreq/cpuinfo_max_freq"), default=0
        ), core

    cores = sorted(sorted(os.sched_getaffinity(0), key=order)[:threads])
    os.sched_setaffinity(0, cores)
    return cores


def processor() -> str:
    """The processor's name; the board's where the system reports no other; else the architecture."""
    lines = (line for line in read_text(Path("/proc/cpuinfo")).splitlines() if line.startswith(("model name", "Model")))
    return next(lines, "").partition(":")[2].strip() or platform.processor() or platform.machine()


def timed(call: Callable[[int], Any], seconds: float, *, least: int = 10) -> Found:
    """Call after call until the time is up: each one's milliseconds, and what all of them together used."""
    times, end = list[float](), time.perf_counter() + seconds
    power, used, began = energy_counters(), time.process_time(), time.perf_counter()
    while len(times) < least or (len(times) < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        call(len(times))
        times.append(1000 * (time.perf_counter() - start))
    lasted, used = time.perf_counter() - began, time.process_time() - used
    return {
        "times_ms": times,
        "seconds": lasted,
        "cpu_seconds": used,
        "joules": joules_between(power, energy_counters()),
    }


def measure(given: argparse.Namespace) -> Found:
    """Everything about one file. Times are of calls with one image, and with `BATCH` for the throughput."""
    import numpy as np

    images = np.ascontiguousarray(np.load(given.images), dtype=np.float32)
    many = np.ascontiguousarray(np.resize(images, (BATCH, *images.shape[1:])))
    rest = timed(lambda turn: time.sleep(0.1), 1.0, least=1) if energy_counters() else {}
    found: Found = {"idle_watts": rest["joules"] / rest["seconds"] if rest else None, "clock_before": clock()}
    kept = {"before": memory(forget=True)}
    open_file = run_path(given.opener)["on_device"]()
    if given.uncounted_import:
        kept["before"] = memory(forget=True)
    began = time.perf_counter()
    predict, used = open_file(given.file, given.threads)
    found |= used | {"load_ms": 1000 * (time.perf_counter() - began)}
    kept["loaded"] = memory()

    def one(turn: int) -> Any:
        return predict(images[turn % len(images)][None])

    for turn in range(given.warmup):
        one(turn)
    single = timed(one, given.seconds / 2)
    kept["single"] = memory()
    try:
        predict(many)
        whole = True
    except Exception:  # each runtime has errors of its own for a file that takes one image at a time
        whole = False
    calls = [many] if whole else [many[at : at + 1] for at in range(BATCH)]
    batch = timed(lambda turn: [predict(part) for part in calls], given.seconds / 2, least=3)
    if given.answers:
        np.save(given.answers, np.concatenate([one(turn) for turn in range(len(images))]))
    found |= {"clock_after": clock(), "memory": kept | {"end": memory()}}
    return found | {"single": single, "batch": batch | {"images": BATCH, "looped": not whole}}


def main() -> int:
    """0, or 3 where a package is missing; anything else is a traceback."""
    parser = argparse.ArgumentParser(description="measure one file on this machine")
    parser.add_argument("--opener", required=True, help="a Python file with on_device, see Runtime")
    parser.add_argument("--file", required=True, help="the file to measure")
    parser.add_argument("--images", required=True, help="[N, C, H, W] in 0..1, as numpy saves it")
    parser.add_argument("--threads", type=int, default=1, help="that the runtime computes with, on as many cores")
    parser.add_argument("--seconds", type=float, default=4.0, help="half for single images, half for many")
    parser.add_argument("--warmup", type=int, default=5, help="calls before the first that counts")
    parser.add_argument("--answers", default="", help="where to write the answers to the images")
    parser.add_argument("--uncounted-import", action="store_true", help="memory counts from after the import on")
    parser.add_argument("--limit", type=int, default=0, help="seconds after which the process ends itself; 0: never")
    given = parser.parse_args()
    if given.limit and hasattr(signal, "alarm"):
        signal.alarm(given.limit)  # a caller whose connection broke can't end this process any more
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    stdout = os.dup(1)
    os.dup2(2, 1)
    found: Found = {"cpu": processor(), "cpus": os.cpu_count(), "cores": pin(given.threads)}
    found["python"] = platform.python_version()
    gc.disable()
    try:
        found |= measure(given)
    except ImportError as problem:
        found |= {"missing": problem.name or "", "problem": str(problem)}
    print(json.dumps(found), file=os.fdopen(stdout, "w"), flush=True)
    return 3 if "missing" in found else 0


if __name__ == "__main__":
    sys.exit(main())
