"""A teacher asked once, through the command: the same student, after kills too; many who label; a plan."""

from __future__ import annotations

import json
import shutil
import signal
import time

import pytest
from click.testing import CliRunner
from kit.command import QUICK, start, stillroom
from kit.resume import assert_equal_runs, wait_for_steps
from safetensors.torch import load_file

from stillroom.benchmark import steps
from stillroom.cli import console, main
from stillroom.io.run_dir import read_stream

ONCE = [*QUICK, "augment.num_views=2", "cache.bits=32"]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The run whose teacher is asked at every step."""
    folder = tmp_path_factory.mktemp("live")
    stillroom("run", *ONCE, "cache.use=never", cwd=folder)
    return folder / "runs" / "digits"


def test_a_cached_teacher_makes_the_same_student_and_a_kill_changes_nothing(live, tmp_path):
    folder = tmp_path / "runs" / "digits"
    process = start("run", *ONCE, "cache.use=always", cwd=tmp_path)
    wait_for_steps(folder, 28, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stillroom("run", *ONCE, "cache.use=always", cwd=tmp_path)
    assert_equal_runs(live, folder)
    info = json.loads((folder / "run.json").read_text())
    assert info["answers"]["kept"] and (tmp_path / info["answers"]["cache"] / "cache.json").exists()
    assert not json.loads((live / "run.json").read_text())["answers"]["kept"]


@pytest.mark.slow
def test_another_recipe_and_another_student_ask_nobody(live, tmp_path):
    words = [
        "run",
        *QUICK,
        "augment.num_views=2",
        "teacher.finetune=none",
        f"teacher.weights={live}/teacher.safetensors",
    ]
    stillroom(*words, "cache.use=always", cwd=tmp_path)
    (cache,) = tmp_path.glob("caches/*/shard-000000.safetensors")
    written = cache.stat().st_mtime_ns
    stillroom(*words, "student.width=0.5", "train.lr=0.01", "seeds=3", "name=other", cwd=tmp_path)
    info = json.loads((tmp_path / "runs" / "other" / "run.json").read_text())
    assert info["answers"]["why"].endswith("has its answers")
    assert cache.stat().st_mtime_ns == written and len(list(tmp_path.glob("caches/*/cache.json"))) == 1


@pytest.mark.slow
def test_many_label_at_once_and_one_that_is_killed_costs_its_shard(live, tmp_path):
    shutil.copytree(live, tmp_path / "runs" / "digits")
    words = ["label", *QUICK, "augment.num_views=24", "--json"]
    first = start(*words, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("caches/*/shard-*")):
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = 8192 * len(list(tmp_path.glob("caches/*/shard-*")))
    both = [start(*words, cwd=tmp_path) for _ in range(2)]
    said = [json.loads(process.communicate()[0]) for process in both]
    assert before + sum(one["added"] for one in said) == said[0]["entries"] == 24 * 669
    again = json.loads(stillroom(*words, "--audit", "0.05", cwd=tmp_path).stdout)
    assert again["added"] == 0 and again["max_difference"] == 0.0
    (folder,) = tmp_path.glob("caches/*/")
    assert not list(folder.glob(".*"))
    shard = next(folder.glob("shard-*0.safetensors"))
    raw = bytearray(shard.read_bytes())
    raw[-9] ^= 1
    shard.write_bytes(raw)
    mended = stillroom(*words, cwd=tmp_path)
    assert json.loads(mended.stdout)["added"] == 8192 and "SR-T602" in mended.stderr
    assert load_file(shard)["records"].shape == (8192, 4 + 10 * 2 + 1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["augment.num_views=2"], "SR-T606"),
        (["teacher.finetune=none", "teacher.weights=TEACHER", "augment.num_views=0"], "SR-T607"),
        (["teacher.finetune=none", "teacher.weights=TEACHER", "augment.num_views=9", "cache.max_gb=1e-6"], "SR-T604"),
    ],
)
def test_label_refuses_with_the_reason(live, tmp_path, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("TEACHER", str(live / "teacher.safetensors")) for word in words]
    done = CliRunner().invoke(main, ["label", *QUICK, *words, "--json"])
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code and done.exit_code == error["exit_code"] > 0
    assert not list(tmp_path.glob("caches/*/cache.json"))


def test_a_plan_tells_hours_memory_disk_and_who_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "SECONDS", 0.05)
    done = CliRunner().invoke(main, ["plan", *QUICK, "augment.num_views=1", "train.steps=4000", "--json"])
    found = json.loads(done.stdout)
    assert set(found["ways"]) == {"teacher", "baseline", "live", "cached"}
    assert all(low <= middle <= high for low, middle, high in found["hours"].values())
    total = found["hours"]["teacher"][1] + found["hours"]["baseline"][1] + found["hours"]["student, cached"][1]
    assert found["hours"]["total"][1] == pytest.approx(total)
    assert found["teacher"]["mode"] == "cached" and found["teacher"]["entries"] == 669
    assert found["disk_gb"]["cache"] == round(669 * 21 / 2**30, 3)
    assert found["ways"]["live"]["peak_gb"] > 0.1
    assert not list(tmp_path.iterdir())
    console.print_plan(found | {"compile": {"speedup": 1.2, "start": 30.0, "saves": -12.0}})


def test_the_log_of_a_cached_run_has_every_step_once(live):
    numbers = [line["step"] for line in read_stream(live, "steps.jsonl") if line["stage"] == "student"]
    assert numbers == list(range(1, 13))
