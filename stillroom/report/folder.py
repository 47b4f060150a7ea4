"""A run folder as values. A missing or empty part is an empty value here, unless a reader can't do without it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.export import runtime
from stillroom.export.runtime import RuntimeInfo
from stillroom.report import about
from stillroom.report.errors import NotARunFolder, UnreadableRunFile
from stillroom.report.format import number

ROLES = ("teacher", "baseline", "student")


@dataclass(frozen=True)
class Measured:
    """One figure of `metrics.json`: `value` is a finite float, a dict (recall by class), or None.

    `max_difference`: of an agreement, how far the two answers that differ most are apart. `source`: of an energy,
    "measured" or "estimated". `cost`: of a Performance-Cost Ratio, "energy" or "bytes".
    """

    value: Any
    ci95: tuple[float, float] | None = None
    n: int | None = None
    how: str = ""
    stable: bool = True
    max_difference: float | None = None
    source: str = ""
    cost: str = ""


@dataclass(frozen=True)
class Speaker:
    """Whatever answers for an image: teacher, baseline, student, a network on the way to it, or an exported file.

    Attributes:
        key: its name in `samples/probe.json`: "teacher", "prune", "onnx-8".
        role: its colour and mark: "teacher", "baseline", "stage", "student" or "file".
        verified: None for what is not a file.
        what: what made it, where a compression did: "prune, macs=0.5".
        front: whether it is on the Pareto front; None where that was not asked.
        runtime: of a file whose runtime the program has, or whose words were kept beside its figures.
    """

    key: str
    role: str
    label: str
    figures: dict[str, Measured] = field(default_factory=dict)
    verified: bool | None = None
    bits: int | None = None
    target: str = ""
    path: str = ""
    what: str = ""
    front: bool | None = None
    runtime: RuntimeInfo | None = None

    def value(self, name: str) -> float | None:
        """A figure's finite value, or None."""
        return number(self.figures[name].value) if name in self.figures else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """A figure's 95 % interval, or None."""
        return self.figures[name].ci95 if name in self.figures else None


@dataclass(frozen=True)
class Folder:
    """Everything that the report and the card read."""

    path: Path
    run: dict[str, Any]
    about: about.About
    recipe: str
    speakers: tuple[Speaker, ...]
    probe: dict[str, Any]
    target: dict[str, Any] = field(default_factory=dict)

    def speaker(self, key: str) -> Speaker | None:
        """The speaker of that key, or None."""
        return next((speaker for speaker in self.speakers if speaker.key == key), None)

    def part(self, *names: str) -> dict[str, Any]:
        """A nested table of `run.json`; empty where it is missing or no table."""
        found: Any = self.run
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def table(self, name: str) -> list[dict[str, Any]]:
        """A list of tables in `run.json`; empty where it is missing or none."""
        return _dicts(self.run.get(name))

    def leads(self, speaker: Speaker | None) -> float | None:
        """A speaker's headline figure; None where there is none."""
        return speaker.value(self.about.headline) if speaker else None

    @property
    def files(self) -> tuple[Speaker, ...]:
        """The exported files."""
        return tuple(speaker for speaker in self.speakers if speaker.role == "file")

    @property
    def stages(self) -> tuple[Speaker, ...]:
        """The networks between the first student and the last, where compressions made such."""
        return tuple(speaker for speaker in self.speakers if speaker.role == "stage")

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        names = self.part("data").get("classes") or self.probe.get("classes") or []
        return [str(name) for name in names] if isinstance(names, list) else []


def read(path: Path) -> Folder:
    """The folder at `path`.

    Raises:
        StillroomError: SR-C460 there is no `run.json`; SR-C461 a file holds something else than JSON.
    """
    if not (path / "run.json").is_file():
        raise NotARunFolder(folder=path)
    recipe, run = path / "recipe.toml", _json(path / "run.json")
    metrics = _json(path / "metrics.json")
    target = metrics.get("target")
    return Folder(
        path=path,
        run=run,
        about=about.read(run.get("task")),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
        speakers=_speakers(metrics, run),
        probe=_json(path / "samples" / "probe.json"),
        target=target if isinstance(target, dict) else {},
    )


def figure(found: Any) -> Measured | None:
    """A figure as written: an object, or a bare number; None when there is nothing in it."""
    if not isinstance(found, dict):
        value = number(found)
        return None if value is None else Measured(value)
    value = found.get("value")
    if not isinstance(value, dict):
        value = number(value)
    if value is None and not found.get("how"):
        return None
    stable = found.get("stable", True) is not False
    how, apart = str(found.get("how") or ""), number(found.get("max_difference"))
    more = {name: str(found.get(name) or "") for name in ("source", "cost")}
    return Measured(value, _ends(found.get("ci95")), _whole(found.get("n")), how, stable, apart, **more)


def digests(folder: Folder) -> list[tuple[str, int, str]]:
    """(path, bytes, sha256) of the student's weights and of every exported file that is there."""
    found = []
    files = [name for file in folder.files for name in (file.path, *companions(file))]
    for name in ["student.safetensors", *files]:
        file = inside(folder.path, name)
        if file is not None:
            with file.open("rb") as stream:
                found.append((name, file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()))
    return found


def companions(file: Speaker) -> list[str]:
    """The paths of the files that an exported file needs beside it."""
    suffixes = file.runtime.suffixes if file.runtime else ()
    path = file.path
    return [path.removesuffix(suffixes[0]) + more for more in suffixes[1:] if path.endswith(suffixes[0])]


def inside(folder: Path, name: str) -> Path | None:
    """The file called `name` in `folder`; None when there is none, or when the name leads out of the folder."""
    try:
        file = (folder / name).resolve()
        return file if name and file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # a name that the file system refuses
        return None


def _speakers(metrics: dict[str, Any], run: dict[str, Any]) -> tuple[Speaker, ...]:
    made = _dicts(run.get("compress"))
    what = {"student": str(made[-1].get("what") or "")} if made else {}
    found = {
        role: Speaker(role, role, role, _figures(metrics[role]), what=what.get(role, ""), front=_front(metrics[role]))
        for role in ROLES
        if isinstance(metrics.get(role), dict)
    }
    student = [found.pop("student")] if "student" in found else []
    files = [_file(export) for export in _dicts(metrics.get("exports"))]
    return (*found.values(), *_stages(_dicts(metrics.get("stages"))), *student, *files)


def _stages(rows: list[dict[str, Any]]) -> list[Speaker]:
    found: list[Speaker] = []
    for row in rows:
        name = str(row.get("stage") or "stage")
        same = sum(one.key.partition("#")[0] == name for one in found)  # one of several of that name
        key = f"{name}#{same + 1}" if same else name
        what = str(row.get("what") or "")
        found.append(Speaker(key, "stage", name, _figures(row), what=what, front=_front(row)))
    return found


def _front(row: dict[str, Any]) -> bool | None:
    found = row.get("front")
    return found if isinstance(found, bool) else None


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _file(export: dict[str, Any]) -> Speaker:
    target, bits = str(export.get("target") or "file"), _whole(export.get("bits")) or 32
    words = runtime.info(target, export.get("runtime"))
    return Speaker(
        key=f"{target}-{bits}",
        role="file",
        label=f"{kind(bits)} {words.title if words else target}",
        runtime=words,
        figures=_figures(export),
        verified=export.get("verified") is True,
        bits=bits,
        target=target,
        path=str(export.get("path") or ""),
        front=_front(export),
    )


def kind(bits: int | None) -> str:
    """What people call a file of that many bits a weight: "float", "half", "int8"."""
    return {32: "float", 16: "half"}.get(bits or 32, f"int{bits}")


def _figures(found: dict[str, Any]) -> dict[str, Measured]:
    read = {name: figure(value) for name, value in found.items() if name != "bits"}
    return {name: value for name, value in read.items() if value is not None}


def _ends(found: Any) -> tuple[float, float] | None:
    if not isinstance(found, list) or len(found) != 2:
        return None
    low, high = number(found[0]), number(found[1])
    return None if low is None or high is None else (low, high)


def _whole(found: Any) -> int | None:
    value = number(found)
    return None if value is None else int(value)


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
