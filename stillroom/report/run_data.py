"""The files of a run folder as values. A missing or malformed part is an empty value, unless nothing can be shown."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.export import runtime
from stillroom.export.runtime import RuntimeInfo
from stillroom.report import task_description
from stillroom.report.errors import NotARunFolder, UnreadableRunFile
from stillroom.report.format import number
from stillroom.report.metric_value import MetricValue, integer, metric_value
from stillroom.report.task_description import TaskDescription

ROLES = ("teacher", "baseline", "student")


@dataclass(frozen=True)
class ModelResult:
    """A model of the run with its metrics: teacher, baseline, student, an intermediate network or an exported file.

    Attributes:
        key: its name in `samples/probe.json`: "teacher", "prune", "onnx-8".
        role: determines colour and marker: "teacher", "baseline", "stage", "student" or "file".
        verified: None for a model that is not a file.
        what: the compression that produced it: "prune, macs=0.5".
        front: whether it is on the Pareto front; None if the run has no front.
        runtime: of a file, if the runtime is installed with the program or was described beside the metrics.
    """

    key: str
    role: str
    label: str
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    verified: bool | None = None
    bits: int | None = None
    target: str = ""
    path: str = ""
    what: str = ""
    front: bool | None = None
    runtime: RuntimeInfo | None = None

    def value(self, name: str) -> float | None:
        """The finite value of a metric, or None."""
        return number(self.metrics[name].value) if name in self.metrics else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a metric, or None."""
        return self.metrics[name].ci95 if name in self.metrics else None


@dataclass(frozen=True)
class RunData:
    """The input of report and card.

    Attributes:
        path: the run folder.
        info: `run.json`.
        task: `task` of it.
        recipe: `recipe.toml` as text.
        models: in the order of the result table.
        probe: `samples/probe.json`.
        deployment: `target` of `metrics.json`.
    """

    path: Path
    info: dict[str, Any]
    task: TaskDescription
    recipe: str
    models: tuple[ModelResult, ...]
    probe: dict[str, Any]
    deployment: dict[str, Any] = field(default_factory=dict)

    def model(self, key: str) -> ModelResult | None:
        """The model of that key, or None."""
        return next((model for model in self.models if model.key == key), None)

    def section(self, *names: str) -> dict[str, Any]:
        """A nested table of `run.json`; empty if it is missing or not a table."""
        found: Any = self.info
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def records(self, name: str) -> list[dict[str, Any]]:
        """A list of tables in `run.json`; empty if it is missing or not a list."""
        return _dicts(self.info.get(name))

    def headline(self, model: ModelResult | None) -> float | None:
        """The value of a model's headline metric, or None."""
        return model.value(self.task.headline) if model else None

    @property
    def files(self) -> tuple[ModelResult, ...]:
        """The exported files."""
        return tuple(model for model in self.models if model.role == "file")

    @property
    def intermediate(self) -> tuple[ModelResult, ...]:
        """The networks between the distilled student and the final one, if the run compresses."""
        return tuple(model for model in self.models if model.role == "stage")

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        names = self.section("data").get("classes") or self.probe.get("classes") or []
        return [str(name) for name in names] if isinstance(names, list) else []


def read(path: Path) -> RunData:
    """The run in the folder `path`.

    Raises:
        NotARunFolder: SR-C460, there is no `run.json`.
        UnreadableRunFile: SR-C461, a file does not hold a JSON object.
    """
    if not (path / "run.json").is_file():
        raise NotARunFolder(folder=path)
    recipe, info = path / "recipe.toml", _json(path / "run.json")
    metrics = _json(path / "metrics.json")
    deployment = metrics.get("target")
    return RunData(
        path=path,
        info=info,
        task=task_description.read(info.get("task")),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
        models=_models(metrics, info),
        probe=_json(path / "samples" / "probe.json"),
        deployment=deployment if isinstance(deployment, dict) else {},
    )


def precision_name(bits: int | None) -> str:
    """The usual name of a file with that many bits per weight: "float", "half", "int8"."""
    return {32: "float", 16: "half"}.get(bits or 32, f"int{bits}")


def _models(metrics: dict[str, Any], info: dict[str, Any]) -> tuple[ModelResult, ...]:
    compressions = _dicts(info.get("compress"))
    what = {"student": str(compressions[-1].get("what") or "")} if compressions else {}
    networks = {
        role: ModelResult(
            role, role, role, _metrics(metrics[role]), what=what.get(role, ""), front=_front(metrics[role])
        )
        for role in ROLES
        if isinstance(metrics.get(role), dict)
    }
    student = [networks.pop("student")] if "student" in networks else []
    files = [_file(export) for export in _dicts(metrics.get("exports"))]
    return (*networks.values(), *_intermediate(_dicts(metrics.get("stages"))), *student, *files)


def _intermediate(rows: list[dict[str, Any]]) -> list[ModelResult]:
    found: list[ModelResult] = []
    for row in rows:
        name = str(row.get("stage") or "stage")
        same_name = sum(model.key.partition("#")[0] == name for model in found)
        key = f"{name}#{same_name + 1}" if same_name else name
        what = str(row.get("what") or "")
        found.append(ModelResult(key, "stage", name, _metrics(row), what=what, front=_front(row)))
    return found


def _file(export: dict[str, Any]) -> ModelResult:
    target, bits = str(export.get("target") or "file"), integer(export.get("bits")) or 32
    info = runtime.info(target, export.get("runtime"))
    return ModelResult(
        key=f"{target}-{bits}",
        role="file",
        label=f"{precision_name(bits)} {info.title if info else target}",
        metrics=_metrics(export),
        verified=export.get("verified") is True,
        bits=bits,
        target=target,
        path=str(export.get("path") or ""),
        front=_front(export),
        runtime=info,
    )


def _metrics(row: dict[str, Any]) -> dict[str, MetricValue]:
    values = {name: metric_value(record) for name, record in row.items() if name != "bits"}
    return {name: value for name, value in values.items() if value is not None}


def _front(row: dict[str, Any]) -> bool | None:
    front = row.get("front")
    return front if isinstance(front, bool) else None


def _dicts(records: Any) -> list[dict[str, Any]]:
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnreadableRunFile(file=path, problem=str(error)) from error
    if not isinstance(found, dict):
        raise UnreadableRunFile(file=path, problem=f"expected an object, found {type(found).__name__}")
    return found
