"""Which methods should be the default: each policy on several data sets, with few and with all labels, over seeds.

    python benchmarks/policies.py --data DIR [--seeds 5] [--steps 600] [--only digits-few ...]

DIR holds `fashion_mnist/`, `cifar10/`, `pneumoniamnist/*.npz` and `weights/`, as published. Every training is a run of
the command, in `runs/policies/`; what is finished is not repeated, so the table can be made in pieces. The teacher of a
data set is trained once and given to every policy; the baseline is trained once per seed. All have the same steps,
batch, augmentation and test images. The differences are tested in pairs: paired t over seeds, and in each run McNemar.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stillroom.io import environment
from stillroom.report.multi_seed import SeedStatistics

RESULT = Path(__file__).parent / "results" / "policies.json"
WORK = Path("runs/policies")
STANDARD = '{name = "hinton", temperature = 2.0, weight = 9.0, standardised = true}'
POLICIES = {
    "hinton T 4, 0.9": '[{name = "hinton"}]',
    "standardised T 2, 9": f"[{STANDARD}]",
    "fitnet + standardised": f'[{{name = "fitnet"}}, {STANDARD}]',
    "fitnet + hinton": '[{name = "fitnet"}, {name = "hinton"}]',
    "dist": '[{name = "dist"}]',
}
DEAD = ("standardised T 2, 9", "fitnet + standardised", "dist")
"""Policies that say nothing about two classes."""


@dataclass(frozen=True)
class Setting:
    """A data set with a number of labels; `words` are its recipe."""

    words: tuple[str, ...]
    teacher: tuple[str, ...]
    classes: int = 10


def settings(data: Path) -> dict[str, Setting]:
    """Name -> setting."""
    shift = ("augment.shift=0.1", "augment.zoom=0.1")
    photo = ("augment.flip=true", "augment.shift=0.1")
    small = ("student=resnet8", "student.width=0.5")
    digits = ("data=digits", *shift, "augment.rotate=10.0", "student=resnet8")
    x_rays = (f"data={pneumonia(data)}", *shift, *small)
    fashion = (f"data={data / 'fashion_mnist'}", *photo, *small)
    cifar = (f"data={data / 'cifar10'}", *photo, *small)
    own = ("teacher=resnet20", "teacher.train.steps=600")
    wide = (*own, "teacher.width=2.0")
    given = ("teacher=resnet20", f"teacher.weights={data / 'weights' / 'cifar10_resnet20.safetensors'}")
    return {
        "digits, 50 labels": Setting((*digits, "data.labels=50", "data.teacher_images=500"), wide),
        "digits, all labels": Setting(digits, wide),
        "x-rays, 80 labels": Setting((*x_rays, "data.labels=80", "data.teacher_images=2000"), own, 2),
        "x-rays, all labels": Setting(x_rays, own, 2),
        "fashion, 200 labels": Setting((*fashion, "data.labels=200", "data.teacher_images=10000"), own),
        "cifar-10, 450 labels": Setting((*cifar, "data.labels=450"), given),
        "cifar-10, all labels": Setting(cifar, given),
    }


def pneumonia(data: Path) -> Path:
    """The .npz as folders of images, written once."""
    root = WORK.resolve() / "pneumonia"
    if not root.exists():
        (file,) = (data / "pneumoniamnist").glob("*.npz")
        arrays = np.load(file)
        for split in ("train", "val", "test"):
            for row, (image, label) in enumerate(
                zip(arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel(), strict=True)
            ):
                folder = root / split / ("normal", "pneumonia")[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{row:04d}.png")
    return root


def measure(name: str, setting: Setting, policy: str, seeds: int, steps: int) -> dict[str, dict[str, float]]:
    """Accuracy of teacher, baseline and student, and p of McNemar's test, seed by seed."""
    folder = WORK / name.replace(", ", "-").replace(" ", "-") / policy.replace(" ", "-").replace(",", "")
    first = folder.parent / next(iter(POLICIES)).replace(" ", "-").replace(",", "")
    teacher = list(setting.teacher)
    if folder != first and (trained := first / "seed-0" / "teacher.safetensors").exists():
        teacher = [word for word in teacher if ".train." not in word] + [f"teacher.weights={trained}"]
    for seed in range(seeds) if folder != first else ():  # the baselines are the same: same seeds, same images
        (folder / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        shutil.copy(first / f"seed-{seed}" / "baseline.safetensors", folder / f"seed-{seed}")
    command = [Path(sys.executable).with_name("stillroom"), "run", *setting.words, *teacher]
    more = [f"methods={POLICIES[policy]}", f"train.steps={steps}", "train.batch=64", "train.lr=4e-3", "export=[]"]
    more += ["train.precision=float32", "teacher.train.precision=float32", "bench.seconds=0.2", "--folder", folder]
    more += ["--seeds", str(seeds)]
    subprocess.run([*command, *more], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    found = {}
    for seed in range(seeds):
        metrics = json.loads((folder / f"seed-{seed}" / "metrics.json").read_text(encoding="utf-8"))
        found[str(seed)] = {role: metrics[role]["accuracy"]["value"] for role in ("teacher", "baseline", "student")}
        found[str(seed)]["p"] = metrics["student"]["gain"]["p"]
    return found


def main() -> None:
    """Measure what is asked and not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="*", default=None)
    given = parser.parse_args()
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
    for name, setting in settings(given.data.resolve()).items():
        if given.only and name not in given.only:
            continue
        for policy in POLICIES:
            if setting.classes == 2 and policy in DEAD:
                continue
            key = f"{name} | {policy} | {given.steps} steps"
            if len(rows.get(key, {})) < given.seeds:
                rows[key] = measure(name, setting, policy, given.seeds, given.steps)
                facts = {"command": " ".join(sys.argv[:1]), "machine": environment.hardware(torch.device("cpu"), 1)}
                RESULT.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
            print(line(key, rows[key]), flush=True)


def line(key: str, row: dict[str, dict[str, float]]) -> str:
    """One row of the table: means over seeds and the paired gain."""
    gain = SeedStatistics({int(seed): one["student"] - one["baseline"] for seed, one in row.items()})
    low, high = gain.ci95 or (float("nan"), float("nan"))
    means = " | ".join(
        f"{100 * np.mean([one[role] for one in row.values()]):.1f} %" for role in ("teacher", "baseline", "student")
    )
    return f"| {key} | {means} | {100 * gain.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) |"


if __name__ == "__main__":
    main()
