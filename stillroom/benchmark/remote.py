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
from stillroom.benchmark.places import HOST, PATIENCE, Done, Here, There, here, last, there
from stillroom.metrics.measurement import Measurement

COMPANIONS = {"openvino": (".bin",)}
"""Runtime -> endings of the files beside the one that is opened."""

PIP = {"ai_edge_litert": "ai-edge-litert"}
"""Module -> package, where they differ."""

HOT = {"stable": False, "flag": DriftingTiming.code, "throttled": True}
"""What times are marked with that the device itself says were taken while it was too hot."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a file took where it was run.

    Attributes:
        single: times of calls with one image.
        batch: times of calls with 32 images, or of loops over 32 where the file takes one at a time.
        energy: of a call with one image.
        load_ms: to open the file, the import of the runtime not included.
        peak: bytes at most with single images, above what was held before the runtime was loaded; None where the
            system does not tell.
        answers: [N, ...] what the file said to the images there, as float32.
        facts: the device: processor, cores used, threads set, versions, clock and heat before and after, all memory.
    """

    single: latency.Latency
    batch: latency.Latency
    energy: energy.Energy
    load_ms: float
    peak: int | None
    answers: np.ndarray
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
            if self.facts["runtime"] == "executorch":
                how = how.replace("loaded", "opened, for its Python module brings torch along")
            found["peak_mb"] = Measurement(value=self.peak / 1e6, n=1, how=how)
        return found | self.energy.figures()

    @property
    def throttled(self) -> bool:
        """Whether the device says that it slowed a core down for heat meanwhile; most don't say."""
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
        path: the file; what belongs to it (an OpenVINO file's `.bin`) is found beside it.
        runtime: a key of `device.RUNTIMES`.
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
            there; SR-B913 it did not end in time; SR-B914 not a host name; SR-B915 a runtime that the script does not
            know.
    """
    if runtime not in device.RUNTIMES:
        raise UnsupportedRuntime(runtime=runtime, known=", ".join(device.RUNTIMES))
    if host and not HOST.fullmatch(host):
        raise InvalidHostName(host=host)
    where, limit = host or "this machine", PATIENCE + 3 * seconds
    options = {"runtime": runtime, "file": f"file{path.suffix}", "images": "images.npy", "answers": "answers.npy"}
    options |= {"threads": str(threads), "seconds": str(seconds), "warmup": str(warmup), "limit": str(round(limit))}
    files = {"device.py": Path(device.__file__).read_bytes(), "images.npy": _saved(images)}
    for one in (path, *filter(Path.exists, (path.with_suffix(suffix) for suffix in COMPANIONS.get(runtime, ())))):
        files[f"file{one.suffix}"] = one.read_bytes()
    with there(host, python, ssh) if host else here() as place:
        place.send(files)
        try:
            done = place.run(_command(place, options), limit)
        except subprocess.TimeoutExpired as problem:
            raise MeasurementTimedOut(where=where, seconds=round(limit)) from problem
        found = _result(done, runtime, where, place.python)
        _, magic, content = place.fetch("answers.npy").partition(b"\x93NUMPY")
    answers = np.load(io.BytesIO(magic + content), allow_pickle=False)
    return _read(found, answers.astype(np.float32), watts)


def _command(place: Here | There, options: Mapping[str, str]) -> list[str]:
    """The script's command line; what is a file lies in the place's folder."""
    # onnxruntime leaves a file where temporary files go; it shall go with the rest.
    words = ["env", f"TMPDIR={place.folder}", place.python, f"{place.folder}/device.py"]
    for name, value in options.items():
        words += [f"--{name}", f"{place.folder}/{value}" if name in ("file", "images", "answers") else value]
    return words


def _result(done: Done, runtime: str, where: str, python: str) -> dict[str, Any]:
    """What the script printed; a failure where that is no result."""
    try:
        found = json.loads(last(done.stdout))
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict) and "missing" in found:
        package = PIP.get(found["missing"], found["missing"].partition(".")[0])
        raise RuntimeNotInstalled(
            where=where, package=package, runtime=runtime, python=python, problem=found["problem"]
        )
    if done.returncode or not isinstance(found, dict):
        problem = last(done.stderr) or f"it ended with {done.returncode} and said nothing"
        raise MeasurementFailed(where=where, problem=problem)
    return found


def _read(found: dict[str, Any], answers: np.ndarray, watts: float | None) -> Measured:
    single, batch, memory, threads = found.pop("single"), found.pop("batch"), found["memory"], found["threads"]
    spent = energy.known(
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
        energy=spent,
        load_ms=found["load_ms"],
        peak=memory["single"]["peak"] - memory["before"]["now"] if known else None,
        answers=answers,
        facts=found | {"looped": batch["looped"]},
    )


def _saved(images: Tensor | np.ndarray) -> bytes:
    """Images as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(images, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()
