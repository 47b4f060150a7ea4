"""The script that measures on a device: what it reads from the system, and one run of it in a process of its own."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from kit.devices import linear

from stillroom.benchmark import device
from stillroom.export.onnx import ONNX

SOURCE = Path(device.__file__)


def test_it_stands_alone() -> None:
    """Only the standard library at the top, nothing of this package anywhere, and no grammar after Python 3.9."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 9))
    at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    anywhere = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]

    def modules(nodes: list[Any]) -> set[str]:
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return {name.partition(".")[0] for name in names | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}}

    assert modules(at_top) <= set(sys.stdlib_module_names)
    assert "stillroom" not in modules(anywhere)


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n", encoding="ascii")


def test_clocks_heat_and_throttling(tmp_path: Path) -> None:
    assert device.clock(tmp_path, tmp_path) == {}
    for core, khz in enumerate((1_000_000, 3_000_000)):
        write(tmp_path / f"cpu{core}/cpufreq/scaling_cur_freq", khz)
        write(tmp_path / f"cpu{core}/thermal_throttle/core_throttle_count", core + 1)
    write(tmp_path / "thermal_zone0/temp", 41_500)
    write(tmp_path / "thermal_zone1/temp", "nonsense")
    assert device.clock(tmp_path, tmp_path) == {"khz": 2_000_000, "throttled": 3, "celsius": 41.5}


def test_the_fastest_cores_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: taken.extend(cores))
    for core, capacity in enumerate((400, 400, 1024, 1024, 400)):
        write(tmp_path / f"cpu{core}/cpu_capacity", capacity)
    assert device.pin(3, tmp_path) == taken == [0, 2, 3]
    monkeypatch.delattr(os, "sched_setaffinity")  # as on macOS
    assert device.pin(1, tmp_path) == []


def test_calls_are_timed_until_the_time_is_up_but_some_in_any_case() -> None:
    seen: list[int] = []
    assert len(device.timed(seen.append, 0.0, least=7)["times_ms"]) == 7 and seen == list(range(7))
    found = device.timed(lambda turn: None, 10.0)
    assert len(found["times_ms"]) == device.MOST and found["seconds"] < 10


def opener(folder: Path) -> list[object]:
    """How an ONNX file is opened on a device, as `remote` sends it."""
    path = folder / "opener.py"
    path.write_text(ONNX().device_script(), encoding="utf-8")
    return ["--opener", path]


def run(*words: object, path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SOURCE), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": path}, cwd="/"
    )


def test_one_run(tmp_path: Path) -> None:
    file, answers = linear(tmp_path / "a.onnx", batch="B"), tmp_path / "answers.npy"
    images = np.random.default_rng(0).random((5, 3, 4, 4), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    options = [*opener(tmp_path), "--file", file, "--images", tmp_path / "images.npy", "--answers", answers]
    done = run(*options, "--seconds", 0.1, "--warmup", 2, "--threads", 1)
    found = json.loads(done.stdout)
    expected = onnxruntime.InferenceSession(file).run(None, {"images": images})[0]
    np.testing.assert_allclose(np.load(answers), expected, atol=1e-6)
    assert (found["version"], found["threads"]) == (onnxruntime.__version__, 1)
    assert len(found["cores"]) == 1 and found["python"].startswith("3.") and found["cpu"]
    single, batch, memory = found["single"], found["batch"], found["memory"]
    assert len(single["times_ms"]) >= 10 and sum(single["times_ms"]) <= 1000 * single["seconds"]
    assert (batch["images"], batch["looped"]) == (32, False)
    assert single["cpu_seconds"] > 0 and found["load_ms"] > 0
    assert memory["before"]["now"] < memory["loaded"]["peak"] <= memory["single"]["peak"] <= memory["end"]["peak"]


SHY = """
class SessionOptions: pass
class InferenceSession:
    def __init__(self, file, options, providers): print("hello from the runtime")
    def get_inputs(self): return [type("", (), {"name": "images"})]
    def get_session_options(self): return options
    def run(self, names, given):
        (images,) = given.values()
        if len(images) > 1: raise RuntimeError("one at a time")
        return [images.mean((1, 2, 3))[:, None]]
class options: intra_op_num_threads = 1
__version__ = "0"
"""


def test_a_file_for_one_image_is_looped_and_only_json_is_printed(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(SHY, encoding="utf-8")
    np.save(tmp_path / "images.npy", np.ones((1, 3, 4, 4), np.float32))
    options = [*opener(tmp_path), "--file", "x", "--images", tmp_path / "images.npy", "--seconds", 0.05]
    done = run(*options, path=str(tmp_path))
    found = json.loads(done.stdout)
    assert found["batch"]["looped"] and len(found["batch"]["times_ms"]) >= 3
    assert "hello from the runtime" in done.stderr


def test_a_missing_runtime_is_named(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('gone', name='onnxruntime')", encoding="utf-8")
    np.save(tmp_path / "images.npy", np.ones((1, 3, 4, 4), np.float32))
    done = run(*opener(tmp_path), "--file", "x", "--images", tmp_path / "images.npy", path=str(tmp_path))
    assert done.returncode == 3
    assert json.loads(done.stdout)["missing"] == "onnxruntime"
