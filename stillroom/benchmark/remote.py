"""Measures an exported file in a process of its own: on this machine, or over SSH on the device it is made for.

Both run the very same script, `device.py`, so that their figures mean the same. Nothing is left behind on a device: the
script and the files lie in a fresh temporary folder there, which is removed whatever happens.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stillroom.benchmark import device, energy, latency
from stillroom.benchmark.errors import (
    DriftingTiming,
    InvalidHostName,
    MeasurementFailed,
    MeasurementTimedOut,
    RuntimeNotInstalled,
    UnsupportedRuntime,
)
from stillroom.benchmark.machines import HOST, PATIENCE, Done, Machine, last_line, local_machine, ssh_machine
from stillroom.export.runtime import Runtime, find
from stillroom.metrics.measurement import Measurement

FILES = ("opener", "file", "images", "answers")
"""Options of the script that name a file."""

HOT = {"stable": False, "flag": DriftingTiming.code, "throttled": True}
"""The mark of times that, by the device's own report, were taken while it was too hot."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a file took where it was run.

    Attributes:
        single: times of calls with one image.
        batch: times of calls with 32 images, or of loops over 32 where the file takes one at a time.
        energy: of a call with one image.
        load_ms: to open the file, the import of the runtime not included.
        peak: bytes at most with single images, above what was held before the runtime was loaded; None where the
            system does not report it.
        answers: [N, ...] the file's answers to the images there, as float32.
        uncounted_import: see `Runtime`.
        facts: the device: processor, cores used, threads set, versions, clock and heat before and after, all memory.
    """

    single: latency.Latency
    batch: latency.Latency
    energy: energy.Energy
    load_ms: float
    peak: int | None
    answers: np.ndarray
    uncounted_import: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Measurement]:
        """`latency_ms`, `latency_p95_ms`, `throughput`, `load_ms`, and where they are known `peak_mb`, `energy_j`."""
        place = f"in a process of its own, {self.facts['runtime']} {self.facts['version']} on {self.facts['cpu']}"
        found = latency.figures(self.single, taken=f"after warm-up, {place}")
        found["throughput"] = latency.throughput(self.batch)["images_per_second"]
        if self.throttled:
            found = {name: replace(one, extra=one.extra | HOT) for name, one in found.items()}
        found["load_ms"] = Measurement(value=self.load_ms, n=1, how=f"opening the file once, {place}")
        if self.peak is not None:
            how = "most that the process held with one image a call (VmHWM), above what it held (VmRSS) before the "
            how += "runtime was loaded; in 10^6 bytes"
            if self.uncounted_import:
                how = how.replace("loaded", f"opened, for {self.uncounted_import}")
            found["peak_mb"] = Measurement(value=self.peak / 1e6, n=1, how=how)
        return found | self.energy.figures()

    @property
    def throttled(self) -> bool:
        """Whether the device reports that it slowed a core down for heat meanwhile; most report nothing."""
        counts = [self.facts[when].get("throttled", 0) for when in ("clock_before", "clock_after")]
        return bool(counts[1] > counts[0])


def measure(
    path: Path,
    *,
    runtime: str,
    images: Tensor | np.ndarray,
    threads: int = 1,
    seconds: float = 4.0,
    warmup: int = 5,
    host: str = "",
    python: str = "python3",
    ssh: str = "ssh",
    watts: float | None = None,
) -> Measured:
    """Run a file in a process of its own and take its figures.

    Args:
        path: the file; the files that belong to it are found beside it.
        runtime: as a recipe names it.
        images: [N, C, H, W] in 0..1, shown one after the other.
        threads: threads that the runtime computes with, kept on as many cores.
        seconds: half of them for single images, half for many.
        warmup: calls before the first that counts.
        host: what `ssh` takes, with a key that needs no password; "" is this machine.
        python: there, of 3.9 or later with numpy and the runtime; a path from the home folder may begin with `~/`.
            Here it is the Python that runs this.
        ssh: the command.
        watts: of the processor at full load, to estimate energy where no counter can be read.

    Raises:
        StillroomError: SR-B910 the host can't be reached; SR-B911 a package is missing there; SR-B912 measuring failed
            there; SR-B913 it did not end in time; SR-B914 not a host name; SR-B915 the runtime does not declare how a
            device opens its files; SR-X733 there is no such runtime.
    """
    kind = find(runtime)
    if not kind.measurable:
        raise UnsupportedRuntime(runtime=runtime)
    if host and not HOST.fullmatch(host):
        raise InvalidHostName(host=host)
    where, limit = host or "this machine", PATIENCE + 3 * seconds
    options = {"opener": "opener.py", "file": f"file{path.suffix}", "images": "images.npy", "answers": "answers.npy"}
    options |= {"threads": str(threads), "seconds": str(seconds), "warmup": str(warmup), "limit": str(round(limit))}
    flags = ["--uncounted-import"] if kind.uncounted_import else []
    files = {"device.py": Path(device.__file__).read_bytes(), "images.npy": _saved(images)}
    files["opener.py"] = kind.device_script().encode()
    for one in (path, *filter(Path.exists, (path.with_suffix(suffix) for suffix in kind.suffixes[1:]))):
        files[f"file{one.suffix}"] = one.read_bytes()
    with ssh_machine(host, python, ssh) if host else local_machine() as machine:
        machine.send(files)
        try:
            done = machine.run([*_command(machine, options), *flags], limit)
        except subprocess.TimeoutExpired as problem:
            raise MeasurementTimedOut(where=where, seconds=round(limit)) from problem
        found = _result(done, kind, where, machine.python) | {"runtime": runtime}
        _, magic, content = machine.fetch("answers.npy").partition(b"\x93NUMPY")
    answers = np.load(io.BytesIO(magic + content), allow_pickle=False)
    return _read(found, answers.astype(np.float32), watts, kind.uncounted_import)


def _command(machine: Machine, options: Mapping[str, str]) -> list[str]:
    """The script's command line; what is a file lies in the machine's folder."""
    # Runtimes may leave a file where temporary files go; it is removed with the rest.
    words = ["env", f"TMPDIR={machine.folder}", machine.python, f"{machine.folder}/device.py"]
    for name, value in options.items():
        words += [f"--{name}", f"{machine.folder}/{value}" if name in FILES else value]
    return words


def _result(done: Done, kind: Runtime, where: str, python: str) -> dict[str, Any]:
    """What the script printed; an error where that is no result."""
    try:
        found = json.loads(last_line(done.stdout))
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict) and "missing" in found:
        module = found["missing"].partition(".")[0]
        package = kind.packages.get(module, module) or " ".join(kind.packages.values())
        raise RuntimeNotInstalled(
            where=where, package=package, runtime=kind.name, python=python, problem=found["problem"]
        )
    if done.returncode or not isinstance(found, dict):
        problem = last_line(done.stderr) or f"it ended with {done.returncode} and printed nothing"
        raise MeasurementFailed(where=where, problem=problem)
    return found


def _read(found: dict[str, Any], answers: np.ndarray, watts: float | None, uncounted_import: str) -> Measured:
    single, batch, memory, threads = found.pop("single"), found.pop("batch"), found["memory"], found["threads"]
    used = energy.best_known(
        total=single["joules"],
        idle_watts=found["idle_watts"],
        seconds=single["seconds"],
        cpu_seconds=single["cpu_seconds"],
        calls=len(single["times_ms"]),
        cpus=found["cpus"] or 1,
        watts=watts,
    )
    known = "peak" in memory["single"] and "now" in memory["before"]
    return Measured(
        single=latency.summarise(single["times_ms"], threads=threads),
        batch=latency.summarise(batch["times_ms"], batch=batch["images"], threads=threads),
        energy=used,
        load_ms=found["load_ms"],
        peak=memory["single"]["peak"] - memory["before"]["now"] if known else None,
        answers=answers,
        uncounted_import=uncounted_import,
        facts=found | {"looped": batch["looped"]},
    )


def _saved(images: Tensor | np.ndarray) -> bytes:
    """Images as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(images, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()
