"""What runs over several seeds came to: their folders read, one row a seed, for the tables of the docs.

    stillroom run bccd-detection 'seeds=[0,1,2]' data.path=... teacher.weights=...
    python benchmarks/tasks.py runs/bccd-detection runs/camvid-segmentation runs/flowers-embedding

Nothing is trained or measured here; every figure is copied from a run's own files.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "tasks.json"
FACTS = ("target", "bits", "verified", "gate")
TIMES = {"latency_ms", "latency_p95_ms", "throughput"}


def main() -> None:
    """Put the rows of the given folders in the place of earlier rows of the same recipes."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    new = [row(file.parent) for folder in sys.argv[1:] for file in sorted(Path(folder).glob("seed-*/metrics.json"))]
    names = {one["recipe"] for one in new}
    rows = sorted([one for one in kept if one["recipe"] not in names] + new, key=lambda r: (r["recipe"], r["seed"]))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def row(folder: Path) -> dict[str, Any]:
    """One run: what was done, on what, and every figure but the times, which belong to one moment."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    return {
        "recipe": folder.parent.name,
        "seed": run["seeds"][0],
        "task": run["task"],
        "teacher": recipe["teacher"]["network"],
        "student": recipe["student"]["network"],
        "methods": [method["name"] for method in recipe["methods"]],
        "minutes": run["seconds"] / 60,
        "stages": {name: spent["seconds"] / 60 for name, spent in run["stages"].items()},
        "status": run["status"],
        "hardware": run["hardware"],
        "versions": run["versions"],
        "figures": {name: _figures(metrics[name]) for name in ("teacher", "baseline", "student")},
        "exports": [{key: one[key] for key in FACTS} | _figures(one) for one in metrics["exports"]],
    }


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: figure[key] for key in ("value", "ci95", "n") if key in figure}
        for name, figure in found.items()
        if isinstance(figure, dict) and name not in TIMES
    }


if __name__ == "__main__":
    main()
