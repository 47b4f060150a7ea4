"""A student made smaller: the whole chain, and what rounding costs with and without training and teacher.

    python benchmarks/compress.py --data CIFAR --weights cifar10_resnet56.safetensors --work runs/compress --seeds 0 1 2
    python benchmarks/compress.py --work runs/compress --collect      # the times, on a quiet machine, and the tables

The recipe `edge` is run for each seed: distil, prune to half the MACs, train with rounding and the teacher. Three other
ends of the same chain share its first two stages, file by file, so that they differ in what comes after the pruning:

    float        nothing at all: the distilled student, not pruned
    ptq          nothing: the int8 file of the pruned student, its ranges from calibration images
    ptq, longer  trained as long as the others, in floats, with the teacher
    qat          trained with rounding, by the labels alone

Each end is exported to onnxruntime and judged on the test images once, the chain itself to every runtime. Figures are
copied from the runs' own `metrics.json`; times are taken anew, of all files of a seed in turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stillroom
from stillroom import api
from stillroom.benchmark import remote
from stillroom.config import recipe as recipes
from stillroom.data import sampling
from stillroom.errors import StillroomError

RESULTS = Path(__file__).resolve().parent / "results" / "compress.json"
ENDS: dict[str, list[dict[str, Any]] | None] = {
    "float": None,
    "ptq": [],
    "ptq-longer": [{"name": "same:Same"}],
    "qat": [{"name": "quantize", "distill": False}],
    "chain": [{"name": "quantize"}],
}
SHARED = ("baseline", "distilled", "prune")
KEPT = ("parameters", "macs", "bytes", "accuracy", "agreement", "max_difference", "peak_mb", "load_ms")
RUNTIMES = ("openvino", "executorch", "litert")
TIMED = ("float", "chain")
ROUNDS, SECONDS = 3, 2.0  # seconds of a file in a round, half of them with one image a call


def main() -> None:
    """Run what is missing, then collect."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = arguments()
    if not given.collect:
        for seed in given.seeds:
            one_seed(given, seed)
    if given.train:
        return
    rows = [found for folder in sorted(given.work.glob("*/seed-*")) for found in collected(folder)]
    times = {}
    for seed in sorted({row["seed"] for row in rows}):
        times[seed] = sitting(given.work, seed)
    if rows:
        for row in rows:
            row |= times[row["seed"]].get(f"{row['end']}/{row['what']}", {})
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of CIFAR-10's parquet files")
    parser.add_argument("--weights", help="of the resnet56")
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), help="besides onnx, for the chain")
    parser.add_argument("--train", action="store_true", help="train only, so that several may do it side by side")
    parser.add_argument("--collect", action="store_true", help="train nothing, write the results of what is there")
    parser.add_argument("override", nargs="*", help="KEY=VALUE of the recipe, to try the script out")
    return parser.parse_args()


def one_seed(given: argparse.Namespace, seed: int) -> None:
    """The chain, then the other ends of it."""
    first = given.work / "chain" / f"seed-{seed}"
    finish(recipe(given, seed, ENDS["chain"], given.runtimes), first)
    for name in [name for name in ENDS if name != "chain"]:
        folder = given.work / name / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for stage in SHARED:
            # The last stage of a chain is the student.
            last = {"float": "distilled", "ptq": "prune"}.get(name)
            target = "student" if stage == last else stage
            if not (folder / f"{target}.safetensors").exists():
                shutil.copy(first / f"{stage}.safetensors", folder / f"{target}.safetensors")
        finish(recipe(given, seed, ENDS[name]), folder)


def recipe(
    given: argparse.Namespace, seed: int, steps: list[dict[str, Any]] | None, runtimes: Sequence[str] = ()
) -> Any:
    """The recipe `edge` with another end. All trainings after the pruning are the same but for what they are about."""
    overrides: dict[str, Any] = {"seeds": [seed], "data.path": given.data, "cache.path": str(given.work / "caches")}
    overrides |= {"teacher.weights": given.weights} if given.weights else {}
    overrides |= dict(recipes.parse_override(word) for word in given.override)
    edge = stillroom.read_recipe("edge", **overrides).as_dict()
    prune, quantize = edge["compress"]
    more = [] if steps is None else [prune, *({"train": quantize["train"]} | one for one in steps)]
    files = [{"runtime": runtime, "bits": bits} for runtime in ("onnx", *runtimes) for bits in (32, 8)]
    return recipes.check(edge | {"compress": more, "export": files})


def finish(what: Any, folder: Path) -> None:
    """Run it to its end; a file that fails its check is a result too."""
    try:
        api.run(what, folder)
    except StillroomError as failure:
        print(failure)


def sitting(work: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Times of a seed's files, in turns, each in a process of its own as on a device: END/FILE -> milliseconds.

    Rounds of all files, so that each ratio is of two of the same round. The other ends are of the chain's own form.
    """
    runs = {name: stillroom.open(work / name / f"seed-{seed}") for name in TIMED}
    files = {f"{name}/{made.name}": made for name, run in runs.items() for made in run.files()}
    example = sampling.sample_images(runs["chain"].data.splits["train"], 4)
    found: dict[str, dict[str, Any]] = {name: {"rounds_ms": [], "steady": []} for name in files}
    for _ in range(ROUNDS):
        for name, made in files.items():
            one = remote.measure(made.path, runtime=made.runtime, images=example, threads=1, seconds=SECONDS).single
            found[name]["rounds_ms"].append(one.p50)
            found[name]["steady"].append(one.stable)
    return found


def collected(folder: Path) -> list[dict[str, Any]]:
    """A run's networks and files, a row each."""
    metrics_file = folder / "metrics.json"
    if not metrics_file.is_file():
        return []
    metrics, info = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", "run.json"))
    about = {
        "end": folder.parent.name,
        "seed": info["seeds"][0],
        "hardware": info["hardware"],
        "versions": info["versions"],
        "seconds": {name: stage["seconds"] for name, stage in info.get("stages", {}).items()},
        "trail": info.get("compress", []),
    }
    networks = {name: metrics[name] for name in ("teacher", "baseline", "student") if name in metrics}
    networks |= {row["stage"]: row for row in metrics.get("stages", [])}
    rows = [about | {"what": name} | figures(found) for name, found in networks.items()]
    for row in metrics["exports"]:
        facts = {"target": row["target"], "bits": row["bits"], "verified": row["verified"], "gate": row["gate"]}
        rows.append(about | {"what": f"{row['target']}-{row['bits']}"} | facts | figures(row))
    return rows


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """The values alone."""
    return {name: found[name]["value"] for name in KEPT if name in found}


if __name__ == "__main__":
    main()
