"""Keys and names that recipes had before: answered with the new one, and read silently in a run's own recipe.

Everything about an old word is in `RENAMED`. It is kept for one release.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

RENAMED: dict[str, dict[str, str]] = {
    "": {"target": "deploy", "balance": "gradient_balancing"},
    "augment": {"views": "num_views"},
    "train": {
        "average": "ema_decay",
        "evaluations": "num_evals",
        "accumulate": "grad_accum_steps",
        "clip": "max_grad_norm",
        "warmup": "warmup_fraction",
    },
    "teacher": {"fit": "finetune", "map": "class_map", "others": "[[teachers]]"},
    "task:detection": {
        "iou": "nms_iou",
        "most": "max_detections",
        "least": "score_threshold",
        "candidates": "pre_nms_topk",
    },
    "methods": {"warmup": "warmup_fraction", "decay": "decay_start"},
    "methods:pseudo_labels": {"iou": "nms_iou", "most": "max_detections", "threshold": "score_threshold"},
    "methods.name": {"foreground": "fgd", "localisation": "ld", "regress": "simreg", "pairwise": "skd"},
    "cache": {"mass": "top_p"},
    "compress": {"taught": "distill"},
    "export": {"target": "runtime"},
}
"""Section -> old word -> new word. `task:detection` holds in a `[task]` of that name, `methods.name` are values."""


def renamed(raw: dict[str, Any]) -> list[str]:
    """A problem for every old word in a recipe, each with the new one."""
    found = []
    for path, section, table in _tables(raw):
        dot = f"{path}." if path else ""
        found += [f"{dot}{old}: was renamed to {new}" for old, new in _keys(section, table).items() if old in table]
        names = RENAMED.get(f"{section}.name", {})
        if (name := table.get("name")) in names:
            found.append(f"{dot}name: {name!r} was renamed to {names[name]!r}")
    return found


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """The recipe with every old word replaced by the new one."""
    raw = copy.deepcopy(raw)
    for _, section, table in list(_tables(raw)):
        names = RENAMED.get(f"{section}.name", {})
        fresh = {_keys(section, table).get(key, key): value for key, value in table.items()}
        if fresh.get("name") in names:
            fresh["name"] = names[fresh["name"]]
        table.clear()
        table.update(fresh)
    teacher = raw.get("teacher")
    if isinstance(teacher, dict) and "[[teachers]]" in teacher:
        others, known = teacher.pop("[[teachers]]"), raw.get("teachers", [])
        raw["teachers"] = [*known, *others] if isinstance(known, list) and isinstance(others, list) else others
        for _, one in _each("teachers", raw["teachers"]):
            if one.get("[[teachers]]") == []:  # as a run wrote it of every teacher
                del one["[[teachers]]"]
    return raw


def _keys(section: str, table: dict[str, Any]) -> dict[str, str]:
    return RENAMED.get(section, {}) | RENAMED.get(f"{section}:{table.get('name')}", {})


def _tables(raw: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every table of a recipe: where it stands, which section's words it has, and itself."""
    yield "", "", raw
    for key, value in list(raw.items()):
        for path, table in _each(key, value):
            yield path, "teacher" if key == "teachers" else key, table
            if isinstance(table.get("train"), dict):
                yield f"{path}.train", "train", table["train"]
            if key == "teacher":
                for inner, other in _each(f"{path}.others", table.get("others")):
                    yield inner, "teacher", other
                    if isinstance(other.get("train"), dict):
                        yield f"{inner}.train", "train", other["train"]


def _each(path: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """A table, or those of a list of tables, with their paths."""
    if isinstance(value, list):
        return [(f"{path}[{i}]", one) for i, one in enumerate(value) if isinstance(one, dict)]
    return [(path, value)] if isinstance(value, dict) else []
