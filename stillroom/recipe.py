"""An experiment as data: read, checked whole, every problem named at once.

A recipe is TOML, so nothing in it can run. The dataclasses below are its one schema; what a plug-in takes (a method's
temperature, a source's path) is read from the plug-in's own constructor. Nothing behind `pipeline` sees a `Recipe`:
everything further down takes plain arguments, or the one section that is its own.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from annotated_types import Ge, Gt, Le, Lt

from stillroom.errors import Failure
from stillroom.plugins import choices, near, pick
from stillroom.signature import build, plugin_problems

Share = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]

Fit = Literal["none", "head", "all"]

BUILT_IN = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images. Further keys go to the source: `path`, mostly."""

    source: str  # a name of `stillroom list sources`; "auto" looks at `path`
    size: Count | None = None  # side in pixels; the images' own where it is left out
    val: Share = 0.15  # share for selection, where the source has no split of its own
    test: Share = 0.2  # share for the final figures, likewise
    max_bad: Share = 0.01  # share of images that may be unreadable
    max_pixels: Count = 89_000_000  # a larger image is refused before it is decoded
    memory_gb: Annotated[float, Ge(0)] = 2.0  # a split that fits is kept in memory, decoded
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a training image may change between two looks. Every number is a largest amount; 0 leaves it alone."""

    flip: bool = False  # mirror left to right, half of the time; off, because a mirrored letter is another letter
    shift: Share = 0.1  # share of the side, either way
    zoom: Share = 0.0  # scale between 1 - zoom and 1 + zoom
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0  # degrees, either way
    brightness: Share = 0.0  # added to all pixels, either way
    contrast: Share = 0.0  # factor between 1 - contrast and 1 + contrast
    saturation: Share = 0.0  # factor between 1 - saturation and 1 + saturation
    erase: Annotated[float, Ge(0), Le(1)] = 0.0  # probability that a square of up to half the side becomes grey


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is predicted, and how much the labels weigh beside the teacher. Further keys go to the task."""

    name: str = "classification"  # a name of `stillroom list tasks`
    weight: Annotated[float, Ge(0)] = 1.0  # of the labels' loss; the baseline always trains with 1
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how fast, how precise."""

    epochs: Positive = 30.0  # looks at every training image
    steps: Count | None = None  # instead of epochs
    batch: Count = 128  # images an optimiser step, over all processes and micro-batches
    accumulate: Count = 1  # micro-batches the batch is cut into, to save memory; gradients stay the same
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd has Nesterov momentum 0.9
    lr: Positive = 1e-3  # the highest learning rate, reached when the warm-up ends
    warmup: Share = 0.05  # share of the run in which the rate climbs; then a cosine to zero
    weight_decay: Annotated[float, Ge(0)] = 0.05  # of weights, not of biases and norms
    clip: Positive = 1.0  # largest gradient norm; inf turns clipping off, the norm is logged either way
    average: Share = 0.999  # decay of the averaged student; 0 averages nothing
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where it is native
    evaluations: Count = 20  # looks at the val split, evenly spread; the best one is kept
    checkpoint_seconds: Annotated[float, Ge(0)] = 30.0  # a kill costs at most this much work

    def __post_init__(self) -> None:
        if self.batch % self.accumulate:
            raise ValueError(f"batch: must be a multiple of accumulate, got {self.batch} and {self.accumulate}")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The large network. Further keys go to the network's constructor."""

    network: str  # resnet56, timm/NAME, torchvision/NAME, huggingface/NAME or package.module:Name
    weights: str | None = None  # a file, "pretrained", or "none" to begin with nothing; see `resolved`
    fit: Fit | None = None  # to the data's classes; follows from `weights` if it is left out
    map: tuple[int, ...] | None = None  # for every class of the data, the teacher's output that means it
    trust: str | None = None  # "sha256:..." of a pickle that may be opened
    train: Training = field(default_factory=Training)  # where it is trained here; what it leaves out is [train]'s
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Student:
    """The small network. Further keys go to the network's constructor."""

    network: str  # as the teacher's
    weights: str = "none"  # to begin from: a file, "pretrained", or "none" to begin with nothing
    trust: str | None = None  # "sha256:..." of a pickle that may be opened
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One thing to imitate. Further keys go to the method's constructor."""

    name: str  # a name of `stillroom list methods`, package.module:Name, or "auto"
    weight: Annotated[float, Ge(0)] | None = None  # the method's own default where it is left out
    warmup: Share = 0.0  # share of the run in which the weight climbs from 0
    decay: Annotated[float, Ge(0), Le(1)] = 1.0  # share of the run after which the weight falls to 0; 1 never
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Export:
    """One file to make, and what it must prove on its own runtime."""

    target: str = "onnx"  # a name of `stillroom list targets`
    bits: Literal[32, 8] = 32  # 32 is float, 8 is int8
    agreement: Annotated[float, Ge(0), Le(1)] | None = None  # with the student; the task knows how much is usual


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole experiment."""

    data: Data
    student: Student
    teacher: Teacher
    name: str = "run"  # the run's folder is runs/NAME; the recipe's file name where it is left out
    seeds: tuple[int, ...] = (0,)  # of first weights, order and augmentation; a run for each
    baseline: bool = True  # train the same student untaught beside it
    task: Task = field(default_factory=Task)
    augment: Augment = field(default_factory=Augment)
    methods: tuple[Method, ...] = (Method(name="hinton"),)
    balance: bool = False  # weights as ratios of gradients: 1 lets a method pull as hard as the labels do
    train: Training = field(default_factory=Training)
    export: tuple[Export, ...] = (Export(bits=32), Export(bits=8))

    def as_dict(self) -> dict[str, Any]:
        """The recipe as it would be written, with every default spelled out."""
        return _plain(self)

    def toml(self) -> str:
        """The recipe as a file. Reading it again gives an equal recipe."""
        return tomli_w.dumps(self.as_dict())


AUTO = "auto"
"""`methods = "auto"`: the methods follow from the task and the two networks, see docs/choosing.md."""

PLUGINS = {Data: ("data/sources", "source"), Task: ("tasks", "name"), Method: ("methods", "name")}
"""Section -> the folder its further keys belong to, and the key that names the plug-in."""

FROM_DATA = {"classes", "channels", "size", "mean", "std", "pretrained"}
"""What every network is told by the program, and a recipe therefore not."""

SHORT = {"data": "source", "teacher": "network", "student": "network", "task": "name"}
"""`teacher = "timm/vit_base_patch16_224"` is short for `teacher.network = ...`."""


def read(source: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe in a file, or a built-in one by name, with `overrides` (dotted keys) laid over it.

    Raises:
        Failure: SR-C400 with every problem found, SR-C401 there is no such recipe, SR-C402 it is not TOML.
    """
    raw, title = ({}, "the command") if source is None else _load(source)
    for key, value in (overrides or {}).items():
        _set(raw, key, value)
    raw.setdefault("name", _slug(raw))
    return check(raw, title)


def check(raw: dict[str, Any], title: str = "the recipe") -> Recipe:
    """`raw` as a `Recipe`, or one `Failure` naming everything that is wrong with it."""
    raw = _expand(raw)
    problems = _unknown_names(raw)
    recipe = build(Recipe, _sections(raw), problems)
    if recipe is not None:
        recipe = resolved(recipe)
        problems += _contradictions(recipe)
    # What is wrong with [train] is wrong with the teacher's inherited copy too, and said once.
    problems = [line for line in problems if not (line[:14] == "teacher.train." and line[8:] in problems)]
    if problems or recipe is None:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise Failure("SR-C400", count=count, source=title, problems="\n".join(f"  {line}" for line in problems))
    checked: Recipe = recipe
    return checked


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with what follows from the rest of it written out.

    A teacher's weights, unless they are said: a library's network (`timm/...`, `torchvision/...`) comes pretrained, any
    other begins with nothing. How far it is fitted, unless it is said: a pretrained network as far as the task is used
    to (a classifier's head, a detector as a whole, an embedding not at all); a file is the user's own and is left as it
    is; a network without weights is trained whole.
    """
    teacher = recipe.teacher
    library = "/" in teacher.network.partition(":")[0]
    weights = teacher.weights or ("pretrained" if library else "none")
    fits: dict[str, Fit] = {"pretrained": pick("tasks", recipe.task.name).fit, "none": "all"}
    teacher = dataclasses.replace(teacher, weights=weights, fit=teacher.fit or fits.get(weights, "none"))
    return dataclasses.replace(recipe, teacher=teacher)


def built_in() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def parse_override(text: str) -> tuple[str, Any]:
    """`train.lr=3e-4` as ("train.lr", 3e-4). The value is TOML where it can be, and a plain string otherwise."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise Failure("SR-C403", text=text)
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _load(source: str | Path) -> tuple[dict[str, Any], str]:
    path = Path(source)
    if not path.suffix and (BUILT_IN / f"{path}.toml").is_file():
        path = BUILT_IN / f"{path}.toml"
    if not path.is_file():
        raise Failure("SR-C401", path=source, hint=near(str(source), built_in()))
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise Failure("SR-C402", path=path, problem=problem) from problem
    return {"name": path.stem} | raw, str(path)


def _slug(raw: dict[str, Any]) -> str:
    """A folder name for a recipe that was only spoken: the same words give the same folder, and so resume."""

    def word(section: str, *keys: str) -> str:
        value = raw.get(section)
        if isinstance(value, dict):
            value = next((value[key] for key in keys if value.get(key)), "")
        return str(value or "").rstrip("/").rpartition("/")[2].rpartition(":")[2]

    words = [word("data", "path", "source"), word("student", "network"), "from", word("teacher", "network")]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", one).strip("-.") for one in words if one) or "run"


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """`raw[a][b] = value` for the key `a.b`; a number steps into a list."""
    *path, last = key.split(".")
    if path and isinstance(raw.get(path[0]), str) and path[0] in SHORT:
        raw[path[0]] = {SHORT[path[0]]: raw[path[0]]}
    here: Any = raw
    for part in path:
        if isinstance(here, list):
            if not (part.isdigit() and int(part) < len(here)):
                raise Failure("SR-C403", text=f"{key}=...")
            here = here[int(part)]
        else:
            here = here.setdefault(part, {})
    if not isinstance(here, dict):
        raise Failure("SR-C403", text=f"{key}=...")
    here[last] = value


def _expand(raw: dict[str, Any]) -> dict[str, Any]:
    """Short forms written out: a string for a section, a name for a method."""
    raw = dict(raw)
    for key, inner in SHORT.items():
        if isinstance(raw.get(key), str):
            raw[key] = {inner: raw[key]}
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), str) and _is_path(data["source"]):
        raw["data"] = {"path": data["source"]} | data | {"source": "auto"}
    elif isinstance(data, dict) and "source" not in data and "path" in data:
        raw["data"] = data | {"source": "auto"}
    methods = raw.get("methods")
    if isinstance(methods, str):
        methods = [name.strip() for name in methods.split(",") if name.strip()]
    if isinstance(methods, list):
        raw["methods"] = [{"name": one} if isinstance(one, str) else one for one in methods]
    if isinstance(raw.get("seeds"), int):
        raw["seeds"] = [raw["seeds"]]
    teacher, train = raw.get("teacher"), raw.get("train")
    if isinstance(teacher, dict) and isinstance(train, dict) and isinstance(teacher.get("train", {}), dict):
        own = teacher.get("train", {})
        length = {"epochs", "steps"}  # one question with two answers: whoever gives one of them has answered it
        inherited = {k: v for k, v in train.items() if not (k in length and length & own.keys())}
        raw["teacher"] = teacher | {"train": inherited | own}
    return raw


def _is_path(source: str) -> bool:
    """Whether `data=photos` means a place: it has a slash, or it is no source but there is a folder of that name."""
    return "/" in source or (source not in choices("data/sources") and ":" not in source and Path(source).exists())


def _sections(raw: dict[str, Any]) -> dict[str, Any]:
    """Keys that a section does not know moved into its `arguments`, where it has any."""
    kinds = {"data": Data, "task": Task, "teacher": Teacher, "student": Student}
    moved: dict[str, Any] = {
        key: _with_arguments(kind, raw[key]) for key, kind in kinds.items() if isinstance(raw.get(key), dict)
    }
    if isinstance(raw.get("methods"), list):
        moved["methods"] = [_with_arguments(Method, one) if isinstance(one, dict) else one for one in raw["methods"]]
    return raw | moved


def _with_arguments(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(kind)} - {"arguments"}
    return {k: v for k, v in given.items() if k in known} | {
        "arguments": {k: v for k, v in given.items() if k not in known}
    }


def _unknown_names(raw: dict[str, Any]) -> list[str]:
    """Problems with plug-ins: names that do not exist, and arguments that their constructors do not take."""
    found: list[str] = []
    places: list[tuple[str, type, Any]] = [("data", Data, raw.get("data")), ("task", Task, raw.get("task"))]
    methods: Any = raw.get("methods")
    if isinstance(methods, list):
        places += [(f"methods[{i}]", Method, one) for i, one in enumerate(methods)]
    for path, kind, given in places:
        if isinstance(given, dict):
            folder, key = PLUGINS[kind]
            name = given.get(key, getattr(kind, key, None))
            if kind is Method and name == AUTO:
                found += _not_alone(path, given, methods)
            elif isinstance(name, str):
                own, arguments = {f.name for f in dataclasses.fields(kind)}, _with_arguments(kind, given)["arguments"]
                wrong = plugin_problems(folder, name, arguments, path, key, own)
                found += wrong or (_refused(folder, name, arguments, path) if kind is not Data else [])
    return found


def _refused(folder: str, name: str, arguments: dict[str, Any], path: str) -> list[str]:
    """What a constructor says against values of the right type. A source is not made: it would read the disk."""
    try:
        pick(folder, name)(**arguments)
    except ValueError as problem:
        return [f"{path}.{problem}"]
    return []


def _not_alone(path: str, given: dict[str, Any], methods: list[Any]) -> list[str]:
    """`auto` chooses everything, so it stands alone and takes nothing."""
    plain = dataclasses.asdict(Method(name=AUTO))  # defaults may be spelled out, as in a run's own recipe.toml
    changed = [key for key, value in given.items() if key not in plain or plain[key] != value]
    more = [f"{path}.{key}: unknown with name = {AUTO!r}, which chooses it" for key in changed]
    return more + ([f"{path}.name: {AUTO!r} stands alone; name methods or let them be chosen"] * (len(methods) > 1))


def _contradictions(recipe: Recipe) -> list[str]:
    """What no single value shows."""
    rules = [
        (not recipe.seeds, "seeds: needs at least one"),
        (
            not recipe.methods and recipe.task.weight == 0,
            "methods: empty, and task.weight is 0: nothing would be trained",
        ),
        (
            recipe.teacher.fit == "none" and recipe.teacher.weights == "none",
            "teacher.fit: 'none' needs teacher.weights; without weights the teacher would be noise",
        ),
        (
            recipe.teacher.fit == "head" and recipe.teacher.weights == "none",
            "teacher.fit: 'head' needs teacher.weights; a head on random features teaches nothing",
        ),
        (
            recipe.teacher.fit != "none" and not pick("tasks", recipe.task.name).taught,
            f"teacher.fit: must be 'none', for labels teach nothing in {recipe.task.name}; give teacher.weights",
        ),
        (recipe.data.val + recipe.data.test >= 1, "data.val + data.test: must leave something to train on"),
        (recipe.data.val == 0, "data.val: must be above 0; selection needs images that the test does not use"),
        (recipe.data.test == 0, "data.test: must be above 0; without it no figure can be trusted"),
    ]
    found = [text for wrong, text in rules if wrong]
    for section, network in (("teacher", recipe.teacher), ("student", recipe.student)):
        for name in sorted(FROM_DATA & network.arguments.keys()):
            found.append(f"{section}.{name}: can't be set here; it follows from the data and the weights")
    return found


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries with `arguments` spread out again, tuples as lists, and no None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        pairs |= pairs.pop("arguments", {})
        return {k: _plain(v) for k, v in pairs.items() if v is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
