"""Other data sets and other teachers: real files beside the checkout, through the command."""

from __future__ import annotations

import json
import shutil

import pytest
from kit.command import stillroom


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_fashion_recipe(shared, tmp_path):
    words = ["fashion", f"data.path={shared / 'fashion_mnist'}", "train.steps=30", "teacher.train.steps=40"]
    stillroom("run", *words, "train.num_evals=1", "teacher.train.num_evals=1", "export=[]", cwd=tmp_path)
    found = metrics(tmp_path / "runs" / "fashion")
    assert found["student"]["accuracy"]["n"] == 10_000
    assert found["student"]["macs"]["value"] <= 0.35 * found["teacher"]["macs"]["value"]
    assert found["teacher"]["accuracy"]["value"] > 0.4  # forty steps; chance is 0.1


@pytest.mark.slow
def test_flowers_with_a_timm_teacher_and_student(shared, tmp_path):
    """Class folders of JPEGs, DeiT-tiny's own weights, its head fitted; a student from timm."""
    for split in ("train", "val"):
        for kind in sorted((shared / "flowers224" / split).iterdir()):
            target = tmp_path / "photos" / split / kind.name
            target.mkdir(parents=True)
            for path in sorted(kind.iterdir())[: 14 if split == "train" else 6]:
                shutil.copy(path, target)
    weights = shared / "weights" / "deit_tiny_patch16_224.in1k.fp16.safetensors"
    words = ["flowers", "data.path=photos", f"teacher.weights={weights}", "teacher.finetune=head", "data.size=64"]
    small = ["student.network=timm/test_resnet", "train.steps=6", "train.num_evals=1", "export=[]"]
    stillroom("run", *words, *small, cwd=tmp_path)
    found = metrics(tmp_path / "runs" / "flowers")
    assert found["teacher"]["accuracy"]["value"] > 0.6  # five kinds: chance is 0.2
    assert found["student"]["macs"]["value"] < found["teacher"]["macs"]["value"]


@pytest.mark.slow
def test_cifar_from_parquet_with_the_classic_checkpoint(shared, tmp_path):
    words = [
        f"data={shared / 'cifar10'}",
        "teacher=resnet20",
        f"teacher.weights={shared / 'weights' / 'cifar10_resnet20.safetensors'}",
        "student=resnet8",
        "train.steps=8",
        "train.num_evals=1",
        "export=[]",
        "name=cifar",
    ]
    stillroom("run", *words, cwd=tmp_path)
    assert metrics(tmp_path / "runs" / "cifar")["teacher"]["accuracy"]["value"] == pytest.approx(0.9173, abs=0.001)
