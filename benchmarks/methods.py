"""Every distillation method under one budget: accuracy over seeds, and what a step costs beside Hinton's.

    python benchmarks/methods.py train --cifar DIR --weights cifar10_resnet20.safetensors [--jobs 2]
    python benchmarks/methods.py cost ...      python benchmarks/methods.py memory ...

Two settings. `cnn`: a trained resnet20 teaches a resnet8 of less than a tenth of its MACs. `vit`: a small ViT, trained
here first, teaches a ViT of a tenth of its MACs; it is there for the methods that need transformers. All methods keep
their own default weight beside labels of weight 1, none is tuned: the table compares what a user gets who changes
nothing. Two variants are the authors' own: standardised logits with their weight, and DKD with its warm-up.

5,000 training images are shown as they are, so the teacher is asked about each once and its answers are kept; the
figures are those of a live teacher, whose answers would be the same numbers. The cost is measured with a live one.
The test split is read once a network, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stillroom.config import recipe, schema
from stillroom.config.plugins import choices, pick
from stillroom.config.schema import Training
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.data.loader import Loader, in_order
from stillroom.distributed.engine import Engine
from stillroom.evaluation.validate import validate
from stillroom.io import environment
from stillroom.matching import method_setup
from stillroom.models import flops
from stillroom.models.network import Network
from stillroom.stages import build
from stillroom.tasks.classification import Classification
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.distiller import Distiller
from stillroom.training.loop import train
from stillroom.training.state import State
from stillroom.types import Output

RESULTS = Path(__file__).parent / "results"
KEPT = Path("runs/benchmark-methods")
SETTINGS = {
    "cnn": {
        "teacher": {"network": "resnet20", "finetune": "none"},
        "student": {"network": "resnet8", "width": 0.5},
    },
    "vit": {
        "teacher": {
            "network": "timm/vit_tiny_patch16_224",
            "weights": "none",
            "img_size": 32,
            "patch_size": 4,
            "embed_dim": 96,
            "depth": 6,
            "num_heads": 3,
        },
        "student": {
            "network": "timm/vit_tiny_patch16_224",
            "img_size": 32,
            "patch_size": 4,
            "embed_dim": 33,
            "depth": 4,
            "num_heads": 3,
        },
    },
}
VIT_METHODS = ("hinton", "vitkd", "minilm", "vkd", "deit")
TRAINING = Training(steps=600, batch=64, lr=4e-3, precision="float32", ema_decay=0.99, weight_decay=0.05)
TEACHING = Training(steps=2000, batch=64, lr=2e-3, precision="float32", ema_decay=0.99, weight_decay=0.05)
SEEDS = (0, 1, 2)
UNTAUGHT = "none"
VARIANTS = {
    "hinton-standardised": {"name": "hinton", "standardised": True, "temperature": 2.0, "weight": 9.0},
    "dkd-warmup": {"name": "dkd", "warmup_fraction": 20 / 240},  # as the authors train it
}


class Remembered:
    """A teacher that has been asked about every training image, and answers from memory."""

    def __init__(self, teacher: FrozenTeacher, data: Dataset, taps: tuple[str, ...]):
        self.network, self.told = teacher.network, {}
        for batch in in_order(data.splits["train"], 256):
            said = teacher((batch.images,), batch.keys, taps)
            for place, item in enumerate(batch.keys.tolist()):
                self.told[item] = (said.pred[place].clone(), {n: t[place].clone() for n, t in said.taps.items()})

    def __call__(self, views: tuple[Tensor, ...], keys: Tensor, taps: tuple[str, ...]) -> Output:
        told = [self.told[item] for item in keys.tolist()]
        pred = torch.stack([said for said, _ in told])
        return Output(pred=pred, taps={name: torch.stack([kept[name] for _, kept in told]) for name in taps})

    def update(self, learner: torch.nn.Module, step: int) -> None:
        """Nothing."""


def asked(args: argparse.Namespace, setting: str, method: str) -> schema.Recipe:
    """The recipe of one training."""
    sides = {side: dict(section) for side, section in SETTINGS[setting].items()}
    if setting == "cnn":
        sides["teacher"]["weights"] = str(args.weights)
    if method == "deit":
        sides["student"]["distilled"] = True
    raw = {
        "name": f"{setting}-{method}",
        "data": {"source": "parquet", "path": str(args.cifar), "val": 0.8, "test": 0.1},
        "methods": [] if method == UNTAUGHT else [VARIANTS.get(method, {"name": method})],
    }
    return recipe.check(raw | sides)


def networks(one: schema.Recipe, data: Dataset, seed: int) -> tuple[Network, FrozenTeacher]:
    pixels = sampling.pixel_statistics(data.splits["train"])
    student = build.build_network(one.student, data, Classification(), pixels, seed=seed)
    teacher = build.build_network(one.teacher, data, Classification(), pixels, seed=0)
    if one.teacher.finetune == "all":
        taught_here(teacher, data)
    return student, FrozenTeacher(teacher)


def taught_here(network: Network, data: Dataset) -> None:
    """Train the ViT that teaches, once, on images that are not the students'; or take what an earlier call left."""
    file = KEPT / "vit-teacher.pt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        learner = Distiller(network, Classification(), {}, {"task": 1.0})
        finished(learner, None, data, TEACHING, seed=0, split="val")
        torch.save(network.state_dict(), file)
    network.load_state_dict(torch.load(file, weights_only=True))


def finished(learner: Distiller, teacher, data: Dataset, config: Training, *, seed: int, split: str = "train") -> None:
    """Train to the end; the student has the averaged weights."""
    engine, state = Engine(1), State.fresh(learner, config, scaled=False)
    batches = Loader(data.splits[split], batch=config.batch, seed=seed)
    for _ in train(learner, teacher, batches, config, state, engine, steps=config.steps, seed=seed):
        pass
    learner.student.load_state_dict(state.average.state_dict())


def train_one(args: argparse.Namespace, data: Dataset, setting: str, method: str, remembered: dict) -> list[dict]:
    """Three students of one method."""
    rows = []
    for seed in SEEDS:
        one = asked(args, setting, method)
        student, teacher = networks(one, data, seed)
        images = sampling.sample_images(data.splits["train"], method_setup.NUM_IMAGES)
        taught = method_setup.build_methods(one.methods, student, teacher, images, seed=seed)
        weights = taught.weights | {"task": one.task.weight}
        learner = Distiller(student, Classification(), taught.methods, weights)
        if one.methods and method not in remembered:
            remembered.clear()
            remembered[method] = Remembered(teacher, data, learner.teacher_taps)
        started = time.perf_counter()
        finished(learner, remembered.get(method), data, replace(TRAINING, steps=args.steps), seed=seed)
        found = validate(student.eval(), Classification(), data.splits["test"], data.classes, batch=256)
        rows.append({"setting": setting, "method": method, "seed": seed, "accuracy": found})
        print(f"{setting} {method} seed {seed}: {found:.2%} ({time.perf_counter() - started:.0f} s)", flush=True)
    return rows


def names(setting: str) -> list[str]:
    """What the setting compares, the untaught student first."""
    able = [name for name in choices("methods") if pick("methods", name).teaches("classes")]
    everywhere = [name for name in able if name not in VIT_ONLY]
    return [UNTAUGHT, *(VIT_METHODS if setting == "vit" else [*everywhere, *VARIANTS])]


VIT_ONLY = ("vitkd", "minilm", "deit")


def main_train(args: argparse.Namespace) -> None:
    """Every method that has no result yet, shared out between `--jobs` processes; then all results in one file."""
    jobs = [(setting, name) for setting in args.settings for name in names(setting) if name in (args.methods or [name])]
    if args.part is None:
        if "vit" in args.settings:  # two jobs should not train the same teacher
            networks(asked(args, "vit", UNTAUGHT), load(args), 0)
        parts = [[*sys.orig_argv, "--part", str(part)] for part in range(args.jobs)]
        workers = [subprocess.Popen(part) for part in parts]
        if failed := max([worker.wait() for worker in workers]):
            sys.exit(failed)
        rows = [row for file in sorted(kept(args).glob("*.json")) for row in json.loads(file.read_text())]
        said = {"machine": environment.hardware(torch.device("cpu"), 1), "facts": facts(args, load(args)), "rows": rows}
        name = "methods.json" if args.steps == TRAINING.steps else f"methods-{args.steps}.json"
        return write(RESULTS / name, said)
    data, remembered = load(args), {}
    for setting, name in jobs[args.part :: args.jobs]:
        file = kept(args) / f"{setting}-{name}.json"
        if not file.exists():
            write(file, train_one(args, data, setting, name, remembered))


def kept(args: argparse.Namespace) -> Path:
    """Where finished methods wait for the others."""
    return KEPT / str(args.steps)


def facts(args: argparse.Namespace, data: Dataset) -> dict:
    """What the table's heading says."""
    found = {"steps": args.steps, "batch": TRAINING.batch, "images": len(data.splits["train"])}
    for setting in args.settings:
        student, teacher = networks(asked(args, setting, UNTAUGHT), data, 0)
        shape, task = (data.channels, data.size, data.size), Classification()
        found[setting] = {
            "student_macs": flops.macs(student, shape),
            "teacher_macs": flops.macs(teacher.network, shape),
            "teacher_accuracy": validate(teacher.predict, task, data.splits["test"], data.classes, batch=256),
        }
    return found


def main_cost(args: argparse.Namespace) -> None:
    """Rounds of a few steps of every method in turn, each a ratio to Hinton's of the same round.

    With `--methods`, of those and Hinton's alone; the other rows of an earlier call stay.
    """
    data, file = load(args), RESULTS / "methods-cost.json"
    found = json.loads(file.read_text(encoding="utf-8")) if args.methods else {}
    for setting in args.settings:
        wanted = ["hinton", *args.methods] if args.methods else names(setting)
        steps = {name: stepper(args, data, setting, name) for name in wanted if name not in VARIANTS}
        for step in steps.values():
            step()
        ratios: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.rounds):
            spent = {name: clocked(step) for name, step in steps.items()}
            for name in steps:
                ratios[name].append(round(spent[name] / spent["hinton"], 4))
        found[setting] = ratios | found.get(setting, {})  # an earlier row stays with the rounds that it was one of
    said = {"machine": environment.hardware(torch.device("cpu"), 1), "rounds": args.rounds}
    write(file, found | said)


def main_memory(args: argparse.Namespace) -> None:
    """The peak of a process that trains with one method and nothing else, in MB; images are read as they are needed."""
    if args.alone:
        section = asked(args, "cnn", UNTAUGHT).data
        step = stepper(args, build.build_data(replace(section, memory_gb=0.0)), *args.alone)
        for _ in range(3):
            step()
        return print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    found: dict[str, dict[str, int]] = {}
    for setting in args.settings:
        for name in names(setting):
            if name not in VARIANTS:
                command = [*sys.orig_argv, "--alone", setting, name]
                said = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault(setting, {})[name] = int(said.stdout.split()[-1])
    write(RESULTS / "methods-memory.json", found)


def stepper(args: argparse.Namespace, data: Dataset, setting: str, method: str):
    """One training step with a live teacher, as a function."""
    one = asked(args, setting, method)
    student, teacher = networks(one, data, 0)
    images = sampling.sample_images(data.splits["train"], method_setup.NUM_IMAGES)
    taught = method_setup.build_methods(one.methods, student, teacher, images, seed=0)
    learner = Distiller(student, Classification(), taught.methods, taught.weights | {"task": 1.0})
    config = replace(TRAINING, steps=10_000)
    state, batches = (
        State.fresh(learner, config, scaled=False),
        Loader(data.splits["train"], batch=config.batch, seed=0),
    )
    stream = train(
        learner, teacher if one.methods else None, batches, config, state, Engine(1), steps=config.steps, seed=0
    )
    return lambda: next(stream)


def clocked(step) -> float:
    started = time.perf_counter()
    for _ in range(2):
        step()
    return time.perf_counter() - started


def load(args: argparse.Namespace) -> Dataset:
    return build.build_data(asked(args, "cnn", UNTAUGHT).data)


def write(file: Path, what: dict | list) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "cost", "memory"))
    parser.add_argument("--cifar", type=Path, required=True, help="folder with CIFAR-10 as parquet files")
    parser.add_argument("--weights", type=Path, required=True, help="a resnet20 trained on it")
    parser.add_argument("--settings", nargs="+", default=["cnn", "vit"], choices=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--steps", type=int, default=TRAINING.steps, help="of each training")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the methods")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"train": main_train, "cost": main_cost, "memory": main_memory}[args.what](args)


if __name__ == "__main__":
    main()
