"""A teacher whose weights are spread over the processes of a run teaches as one that each of them holds."""

from __future__ import annotations

import json

import pytest
from kit.command import QUICK, stillroom
from kit.training import furthest
from safetensors.torch import load_file

WORDS = [
    *QUICK,
    "train.optimizer=sgd",  # Adam magnifies rounding
    "train.lr=0.01",
    'teachers=["resnet8"]',
    'methods=["hinton", {name = "fitnet", student_taps = ["layer2"], teacher_taps = ["2/layer2"]}]',
    "augment.num_views=1",
    "baseline=false",
    "--devices",
    "2",
]


@pytest.mark.slow
def test_a_spread_teacher_teaches_the_same(tmp_path):
    """Two teachers as one, of which the second is listened to inside as well."""
    for name, words in {"spread": ["teacher.shard=true"], "whole": ["cache.use=never"]}.items():
        stillroom("run", *WORDS, *words, "--folder", name, cwd=tmp_path, OMP_NUM_THREADS="1")
    for stage in ("teacher", "teacher-2", "student"):
        one, two = (load_file(tmp_path / name / f"{stage}.safetensors") for name in ("spread", "whole"))
        assert furthest(one, two) < 1e-5, stage
    spread, whole = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("spread", "whole"))
    assert spread["teacher"]["accuracy"] == whole["teacher"]["accuracy"]
    assert (tmp_path / "spread" / "report.html").is_file()
    answers = json.loads((tmp_path / "spread" / "run.json").read_text())["answers"]
    assert not answers["kept"] and "teacher.shard" in answers["why"]
