"""Methods through the command: situations, `auto`, a distillation token, and what is remembered after a kill."""

from __future__ import annotations

import json
import signal
import time

import pytest
from kit.command import QUICK, start, stillroom
from kit.training import same
from safetensors.torch import load_file

from stillroom.config.plugins import choices
from stillroom.config.recipe import built_in
from stillroom.io.run_dir import read_stream
from stillroom.matching.auto import RULES

SHORT = [
    "train.steps=6",
    "teacher.train.steps=6",
    "train.precision=float32",
    "teacher.train.precision=float32",
    "train.num_evals=2",
    "export=[]",
    "baseline=false",
]
STATEFUL = (
    'methods=[{name = "crd", bank = 512, warmup_fraction = 0.5}, {name = "hinton", policy = "learned"}, "mgd", '
    '"sliced_wasserstein", {name = "reviewkd", decay_start = 0.5}, "wkd_logits"]'
)
VIT = ["img_size=8", "patch_size=2", "embed_dim=16", "depth=3", "num_heads=2"]


SITUATIONS = [rule.situation for rule in RULES]
ELSEWHERE = {"boxes", "pixels", "vectors", "two-classes"}
"""Situations whose recipes need images that do not come with the program; test_tasks.py and test_guards.py run them."""


def test_every_situation_is_tried_somewhere():
    assert set(SITUATIONS) - ELSEWHERE <= set(built_in()) and set(SITUATIONS) > ELSEWHERE


@pytest.mark.parametrize(
    "recipe",
    [
        "no-labels",
        "standard",
        *(pytest.param(one, marks=pytest.mark.slow) for one in SITUATIONS if one not in ELSEWHERE | {"standard"}),
    ],
)
def test_each_situation_has_a_recipe_that_runs(recipe, tmp_path):
    stillroom("run", recipe, *SHORT, cwd=tmp_path)
    folder = tmp_path / "runs" / recipe
    info = json.loads((folder / "run.json").read_text())
    steps = [line for line in read_stream(folder, "steps.jsonl") if line["stage"] == "student"]
    taught = set(info["lessons"]["pairs"])
    assert taught and {name.partition("/")[0] for name in steps[-1]["terms"]} == {"task"} | taught
    assert set(steps[-1]["weights"]) == {"task"} | taught and len(steps) == 6
    assert "student ~ teacher" in (folder / "report.html").read_text()


def test_auto_says_what_it_took_and_why(tmp_path):
    stillroom("run", "digits", *SHORT, "methods=auto", cwd=tmp_path)
    info = json.loads((tmp_path / "runs" / "digits" / "run.json").read_text())
    assert info["lessons"]["auto"] == "strong-teacher" and "7.4%" in info["lessons"]["why"]
    assert "dist" in info["lessons"]["pairs"]
    said = stillroom("check", "digits", "methods=auto", cwd=tmp_path).stdout
    assert "strong-teacher" in said and "7.4%" in said


def test_a_distillation_token_from_a_cnn(tmp_path):
    words = ["student.network=timm/vit_tiny_patch16_224", "student.distilled=true", "methods=deit", "task.weight=0.5"]
    words += [f"student.{word}" for word in VIT]
    short = [word for word in SHORT if word != "baseline=false"]
    stillroom("run", "digits", *short, "name=deit", "student={}", *words, "teacher.width=1.0", cwd=tmp_path)
    weights = {
        stage: load_file(tmp_path / "runs" / "deit" / f"{stage}.safetensors") for stage in ("baseline", "student")
    }
    before = weights["baseline"]["head_dist.weight"]
    assert not same({"": before}, {"": weights["student"]["head_dist.weight"]})
    assert "restore(" in (tmp_path / "runs" / "deit" / "README.md").read_text()


@pytest.mark.slow
def test_what_methods_remember_survives_a_kill(tmp_path):
    """A queue of embeddings, a learned temperature, masks, directions, batch norms, measured gradients, schedules."""
    words = ["run", *QUICK, STATEFUL, "gradient_balancing=true", "baseline=false"]
    stillroom(*words, "--folder", "whole", cwd=tmp_path)
    process = start(*words, "--folder", "killed", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(list(read_stream(tmp_path / "killed", "steps.jsonl"))) < 17 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stillroom(*words, "--folder", "killed", cwd=tmp_path)
    whole, killed = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "killed"))
    assert same(whole, killed)
    logs = [list(read_stream(tmp_path / name, "steps.jsonl")) for name in ("whole", "killed")]
    assert [(line["terms"], line["weights"]) for line in logs[0]] == [
        (line["terms"], line["weights"]) for line in logs[1]
    ]
    assert len(logs[0]) == 24 and logs[0][-1]["weights"]["mgd"] != 7e-5


def test_a_listed_method_says_everything(tmp_path):
    said = stillroom("list", "methods", "dist", cwd=tmp_path).stdout
    for word in ("2205.10536", "dist_loss", "Differs:", "Use:", "Avoid:", "Args:"):
        assert word in said
    every = json.loads(stillroom("list", "methods", "--json", cwd=tmp_path).stdout)
    assert set(every) == set(choices("methods")) and all("http" in text for text in every.values())
