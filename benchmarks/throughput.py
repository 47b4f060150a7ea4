"""Images a second: without a teacher, with a live one, with a cached one, beside a bare loop, torchdistill and timm.

    python benchmarks/throughput.py --data DIR --weights cifar10_resnet56.safetensors

`DIR` holds CIFAR-10 as parquet files, the weights are a resnet56's. It teaches a resnet20. All contestants read the
same decoded images, cut and mirror them the same way, have the same networks, batch, loss, threads and processor cores:

    bare          the student alone, in a loop written for this case and nothing else: the limit
    untaught      Stillroom, the student alone
    live          Stillroom, the teacher asked at every step
    cached        Stillroom, the teacher's answers read from a cache
    torchdistill  installed from its package into an environment of its own, as its examples run it
    timm          its logit distillation task, as its train.py runs it

Each runs in a process of its own, one after the other, `--rounds` times; what is compared is always of one round. Where
there is an accelerator it is used. A cache is filled and read before, and held against the teacher's bare forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from statistics import median
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
PARTS = HERE / "throughput"
RESULTS = HERE / "results" / "throughput.json"
sys.path.insert(0, str(PARTS))

import images  # noqa: E402 - stands in the folder
from contestant import CONTESTANTS  # noqa: E402

from stillroom.io import environment  # noqa: E402

BESIDE = ("bare", "untaught", "torchdistill")
FLOAT32 = ("torchdistill",)  # what has no other precision
LOADERS = {"torchdistill": (0, 2), "timm": (0, 2)}  # worker processes that are tried
CLOSE = 1e-3  # of the loss: what 16 bits of an answer may change


class Benchmark:
    """All contestants on this machine."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.folder = args.folder.resolve() / str(args.images or "all")
        self.pythons = dict.fromkeys(CONTESTANTS, sys.executable)
        if "torchdistill" in args.contestants:
            self.pythons["torchdistill"] = installed(self.folder.parent / "torchdistill", args.torchdistill)
        self.workers: dict[str, dict[str, float]] = {}
        self.versions = environment.versions()

    def run(self) -> dict[str, Any]:
        """The file of the results."""
        args, load = self.args, os.getloadavg()[0]
        if load > 0.5:
            print(f"the machine is busy already (load {load:.1f}): figures will be too low, ratios noisy", flush=True)
        count = images.prepare(args.data, self.folder, args.images)
        caches = {kind: self.cache(kind) for kind in args.precision if "cached" in args.contestants}
        for who in [who for who in args.contestants if who in LOADERS]:
            self.workers[who] = {str(n): self.one(who, args.precision[0], workers=n)["rate"] for n in LOADERS[who]}
        rates, losses = self.rounds()
        settings = {name: getattr(args, name) for name in ("batch", "threads", "seed", "rounds", "steps", "warmup")}
        hardware = environment.hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 1)
        return {
            "machine": hardware | {"threads": args.threads, "load_before": round(load, 2)},
            "versions": self.versions,
            "settings": settings | {"images": count},
            "workers": self.workers,
            "rates": rates,
            "caches": caches,
            "losses": {kind: agreement(found) for kind, found in losses.items() if {"live", "cached"} <= found.keys()},
        }

    def cache(self, kind: str) -> dict[str, Any]:
        """A new one, filled and read."""
        found = self.one("cache", kind)
        build, read = (ratio(found[what], found["forward"]) for what in ("build", "read"))
        print(f"cache, {kind:8} {found['answers']:,} answers built at {build} x the forward pass, read at {read} x it")
        return found

    def rounds(self) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, list[float]]]]:
        """Precision -> contestant -> its rate in each round; the same -> its losses in the last one."""
        turns = [(kind, who) for kind in self.args.precision for who in self.args.contestants if who not in FLOAT32]
        turns += [("float32", who) for who in self.args.contestants if who in FLOAT32]
        rates: dict[str, dict[str, list[float]]] = {}
        losses: dict[str, dict[str, list[float]]] = {}
        for number in range(self.args.rounds):
            for kind, who in turns[::-1] if number % 2 else turns:  # whoever was first is last
                found = self.one(who, kind, workers=self.best(who))
                rates.setdefault(kind, {}).setdefault(who, []).append(round(found["rate"], 2))
                losses.setdefault(kind, {})[who] = found["losses"]
                print(f"round {number + 1}, {kind:8} {who:13} {found['rate']:8.0f} images/s", flush=True)
        return rates, losses

    def best(self, who: str) -> int:
        """The number of worker processes that was fastest."""
        tried = self.workers.get(who, {"0": 0.0})
        return int(max(tried, key=tried.__getitem__))

    def one(self, who: str, kind: str, *, workers: int = 0) -> dict[str, Any]:
        """What one process found."""
        args = self.args
        job = {name: getattr(args, name) for name in ("batch", "threads", "warmup", "steps", "seed")}
        job |= {"who": who, "precision": kind, "workers": workers}
        job |= {"folder": str(self.folder), "weights": str(args.weights.resolve())}
        threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [self.pythons.get(who, sys.executable), str(PARTS / "contestant.py"), json.dumps(job)]
        done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{who} failed:\n{done.stderr[-4000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        if "version" in found:
            self.versions[who] = found["version"]
        return found


def installed(folder: Path, package: str) -> str:
    """The Python of an environment that has `package`, and sees this one's torch, so that all compute with the same."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        places = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        (Path(places) / "host.pth").write_text(f"{sysconfig.get_path('purelib')}\n{HERE.parent}\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", package]
        subprocess.run(pip, check=True)
        (folder / "installed").touch()
    return str(python)


def agreement(found: dict[str, list[float]]) -> dict[str, Any]:
    """How far the losses of live and cached are apart, step by step: they see the same images with the same weights."""
    pairs = list(zip(found["live"], found["cached"], strict=True))
    return {
        "steps": len(pairs),
        "live": pairs[-1][0],
        "cached": pairs[-1][1],
        "worst": max(abs(live - cached) / live for live, cached in pairs),
    }


def ratio(above: list[float], below: list[float]) -> str:
    """The median of the rounds' ratios, and their range."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def show(found: dict[str, Any]) -> None:
    """The ratios that matter."""
    for kind, rates in found["rates"].items():
        rates = {
            who: found["rates"]["float32"][who] for who in FLOAT32 if who in found["rates"].get("float32", {})
        } | rates
        print(f"\n{kind}")
        for who in CONTESTANTS:
            if who in rates:
                beside = [other for other in BESIDE if other in rates and other != who]
                ratios = "; ".join(f"{ratio(rates[who], rates[other])} x {other}" for other in beside)
                print(f"  {who:13} {median(rates[who]):7.0f} images/s; {ratios}")
    for kind, one in found["losses"].items():
        verdict = "the same" if one["worst"] <= CLOSE else "NOT THE SAME"
        print(f"{kind}: live {one['live']:.4f}, cached {one['cached']:.4f} after {one['steps']} steps: {verdict}")


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10 as parquet files")
    parser.add_argument("--weights", type=Path, required=True, help="a resnet56 trained on it")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24, help="timed steps of each contestant in each round")
    parser.add_argument("--warmup", type=int, default=4, help="steps before the clock runs")
    parser.add_argument("--images", type=int, help="fewer of them, for a trial")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=cores, help="and processor cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", nargs="+", default=["auto", "float32"], choices=["auto", "float32"])
    parser.add_argument("--contestants", nargs="+", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--torchdistill", default="torchdistill==1.1.5", help="what pip is asked to install")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-throughput"), help="for images and caches")
    parser.add_argument("--to", type=Path, default=RESULTS, help="file of the results")
    args = parser.parse_args()
    found = Benchmark(args).run()
    show(found)
    args.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if any(one["worst"] > CLOSE for one in found["losses"].values()):
        sys.exit("the cached teacher did not teach what the live one does")


if __name__ == "__main__":
    main()
