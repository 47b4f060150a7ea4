"""The sections of a recipe: an experiment as data. Nothing behind `pipeline` sees a `Recipe`.

These dataclasses are a recipe's one schema: names, types, ranges, defaults, and in each line's comment what it means,
from which docs/recipes.md is made. Everything further down takes plain arguments, or the one section that is its own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from annotated_types import Ge, Gt, Le, Lt

Share = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]
Amount = Annotated[float, Gt(0)]  # below 1 a share, else a number

Finetune = Literal["none", "head", "all"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


AUTO = "auto"
"""`methods = "auto"`: the methods follow from the task and the two networks, see docs/choosing.md."""


class Section:
    """What all sections have in common: a key that is no field is refused, and "1" is no number."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True, "extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Data(Section):
    """Which images. Further keys go to the source: `path`, mostly."""

    source: str  # a name of `stillroom list sources`; "auto" looks at `path`
    size: Count | None = None  # side in pixels; the images' own where it is left out
    val: Share = 0.15  # share for selection, where the source has no split of its own
    test: Share = 0.2  # share for the final figures, likewise
    labels: Amount | None = None  # that training uses, a number or a share below 1; other images go without
    teacher_images: Amount | None = None  # labelled ones that only the teacher is trained on, likewise
    max_bad: Share = 0.01  # share of images that may be unreadable
    max_pixels: Count = 89_000_000  # a larger image is refused before it is decoded
    memory_gb: Annotated[float, Ge(0)] = 2.0  # a split that fits is kept in memory, decoded
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Augment(Section):
    """How a training image may change between two views. Every number is a largest amount; 0 leaves it alone."""

    flip: bool = False  # mirror left to right, half of the time; off, because a mirrored letter is another letter
    shift: Share = 0.1  # share of the side, either way
    zoom: Share = 0.0  # scale between 1 - zoom and 1 + zoom
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0  # degrees, either way
    brightness: Share = 0.0  # added to all pixels, either way
    contrast: Share = 0.0  # factor between 1 - contrast and 1 + contrast
    saturation: Share = 0.0  # factor between 1 - saturation and 1 + saturation
    erase: Annotated[float, Ge(0), Le(1)] = 0.0  # probability that a square of up to half the side becomes grey
    mixup: Annotated[float, Ge(0), Le(100)] = 0.0  # images are blended in twos, the share from Beta(mixup, mixup)
    cutmix: Annotated[float, Ge(0), Le(100)] = 0.0  # a box of it is another one's; with mixup, half of the images each
    num_views: Annotated[int, Ge(0), Lt(2**23)] = 0  # distinct views of an image, for a cache to hold; 0: no end

    @property
    def distinct_views(self) -> int:
        """How many different views of an image there are: 1 where nothing changes, 0 where they never end."""
        return 1 if self == Augment(shift=0.0, num_views=self.num_views) else self.num_views


@dataclass(frozen=True, kw_only=True)
class Task(Section):
    """What is predicted, and how much the labels weigh beside the teacher. Further keys go to the task."""

    name: str = "classification"  # a name of `stillroom list tasks`
    weight: Annotated[float, Ge(0)] = 1.0  # of the labels' loss; the baseline always trains with 1
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training(Section):
    """How long, how fast, how precise."""

    epochs: Positive = 30.0  # passes over the training images
    steps: Count | None = None  # instead of epochs
    batch: Count = 128  # images an optimiser step, over all processes and micro-batches
    grad_accum_steps: Count = 1  # micro-batches the batch is cut into, to save memory; gradients stay the same
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd has Nesterov momentum 0.9
    lr: Positive = 1e-3  # the highest learning rate, reached when the warm-up ends
    warmup_fraction: Share = 0.05  # of the run, in which the rate climbs; then a cosine to zero
    weight_decay: Annotated[float, Ge(0)] = 0.05  # of weights, not of biases and norms
    max_grad_norm: Positive = 1.0  # gradients are clipped to it; inf turns clipping off, the norm is logged either way
    ema_decay: Share = 0.999  # of the averaged student, which is what is kept; 0 averages nothing
    precision: Precision = "auto"  # auto: bfloat16 where it is native
    compile: bool = False  # torch.compile; `stillroom plan` says whether it pays
    num_evals: Count = 20  # evaluations on the val split, evenly spread; the best one is kept
    checkpoint_seconds: Annotated[float, Ge(0)] = 30.0  # a kill costs at most this much work

    def __post_init__(self) -> None:
        if self.batch % self.grad_accum_steps:
            raise ValueError(
                f"batch: must be a multiple of grad_accum_steps, got {self.batch} and {self.grad_accum_steps}"
            )

    def third(self) -> Training:
        """A third of the length and of the learning rate: how a compression trains where it does not say."""
        lr = self.lr / 3
        if self.steps:
            return dataclasses.replace(self, epochs=Training.epochs, steps=max(1, round(self.steps / 3)), lr=lr)
        return dataclasses.replace(self, epochs=self.epochs / 3, lr=lr)

    def total_steps(self, images: int) -> int:
        """Optimiser steps of a whole training on so many images: `steps`, or ceil(epochs * images / batch)."""
        return self.steps or max(1, math.ceil(self.epochs * images / self.batch))


@dataclass(frozen=True, kw_only=True)
class Teacher(Section):
    """The large network. Further keys go to the network's constructor."""

    network: str  # resnet56, timm/NAME, torchvision/NAME, huggingface/NAME, onnx or package.module:Name
    weights: str | None = None  # a file, "pretrained", or "none" to begin with nothing; see `resolved`
    finetune: Finetune | None = None  # to the data's classes; follows from `weights` if it is left out
    class_map: tuple[int, ...] | None = None  # for every class of the data, the teacher's output that means it
    trust: str | None = None  # "sha256:..." of a pickle that may be opened
    precision: Precision = "auto"  # of its arithmetic while it teaches; auto: as the training's
    shard: bool = False  # its weights spread over the run's devices (FSDP), for one that is larger than a device
    combine: Literal["logits", "probabilities"] = "logits"  # with `[[teachers]]`: what is averaged over them
    train: Training = field(default_factory=Training)  # where it is trained here; what it leaves out is [train]'s
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cache(Section):
    """The teacher's answers, kept on disk and read again: by later epochs, other seeds, other students."""

    use: Literal["auto", "always", "never"] = "auto"  # auto: where it is estimated to save time, and fits in max_gb
    path: str = "caches"  # the folder of all caches, each in one of its own; or one cache's own folder
    bits: Literal[16, 32] = 16  # 32 keeps answers exactly
    top_p: Annotated[float, Gt(0), Lt(1)] = 0.99  # above 1,000 classes: probability that the kept classes cover
    max_gb: Positive = 2.0  # GiB; a cache that would be larger is refused, or with `auto` not made


@dataclass(frozen=True, kw_only=True)
class Student(Section):
    """The small network. Further keys go to the network's constructor."""

    network: str  # as the teacher's
    weights: str = "none"  # to begin from: a file, "pretrained", or "none" to begin with nothing
    trust: str | None = None  # "sha256:..." of a pickle that may be opened
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(Section):
    """One thing to imitate. Further keys go to the method's constructor."""

    name: str  # a name of `stillroom list methods`, package.module:Name, or "auto"
    weight: Annotated[float, Ge(0)] | None = None  # the method's own default where it is left out
    warmup_fraction: Share = 0.0  # of the run, in which the weight climbs from 0
    decay_start: Annotated[float, Ge(0), Le(1)] = 1.0  # share of the run after which the weight falls to 0; 1 never
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Compress(Section):
    """One way to make the student smaller, and the training that follows. Further keys go to the compression."""

    name: str  # a name of `stillroom list compress`, or package.module:Name
    distill: bool = True  # from the teacher, by the methods; false: the labels alone
    train: Training = field(default_factory=Training)  # what it leaves out is [train]'s; a third of its epochs and rate
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Deploy(Section):
    """What the file must be on the device: the compression is chosen for it, where `[[compress]]` names none."""

    profile: str = ""  # a name of `stillroom list profiles` or a TOML file, for what is left out here
    runtime: str = "onnx"  # a name of `stillroom list runtimes`
    latency_ms: Positive | None = None  # median for one image
    size_mb: Positive | None = None  # of the file, in 10^6 bytes
    threads: Count = 1  # that the runtime computes with
    bits: tuple[Literal[32, 8, 4], ...] = (32, 8)  # of the files that are considered
    host: str = ""  # where it is measured: "" is this machine, else what `ssh` takes
    python: str = "python3"  # there, with numpy and the runtime
    watts: Positive | None = None  # of the processor at full load, to estimate energy where nothing measures it


@dataclass(frozen=True, kw_only=True)
class Export(Section):
    """One file to make, and what it must prove on its own runtime."""

    runtime: str = "onnx"  # a name of `stillroom list runtimes`
    bits: Literal[32, 8, 4] = 32  # 32 is float, 8 is int8, 4 is float arithmetic on 4-bit weights of linear layers
    agreement: Annotated[float, Ge(0), Le(1)] | None = None  # with the student; the task knows how much is usual


@dataclass(frozen=True, kw_only=True)
class Bench(Section):
    """The measurement of latency at the end of a run."""

    seconds: Positive = 3.0  # that networks and files run in turns; batches get two thirds of it, each file alone one


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """The whole experiment."""

    data: Data
    student: Student
    teacher: Teacher
    teachers: tuple[Teacher, ...] = ()  # further teachers beside [teacher], each a table as it
    name: str = "run"  # the run's folder is runs/NAME; the recipe's file name where it is left out
    seeds: tuple[int, ...] = (0,)  # of first weights, order and augmentation; a run for each
    baseline: bool = True  # train the same student by the labels alone beside it
    task: Task = field(default_factory=Task)
    augment: Augment = field(default_factory=Augment)
    metrics: tuple[str, ...] = ()  # further figures: names of `stillroom list metrics`, or package.module:Name
    methods: tuple[Method, ...] = (Method(name=AUTO),)
    gradient_balancing: bool = False  # weights as ratios of gradients: 1 lets a method pull as hard as the labels do
    train: Training = field(default_factory=Training)
    cache: Cache = field(default_factory=Cache)
    compress: tuple[Compress, ...] = ()  # one after the other, each on what the one before left
    deploy: Deploy | None = None  # the device's limits
    export: tuple[Export, ...] = (Export(bits=32), Export(bits=8))
    bench: Bench = field(default_factory=Bench)

    @property
    def all_teachers(self) -> tuple[Teacher, ...]:
        """[teacher], and those beside it."""
        return (self.teacher, *self.teachers)

    @property
    def trainings(self) -> dict[str, Training]:
        """What is trained here, under the names of the sections."""
        teachers = {"teacher": self.teacher} | {f"teachers.{i}": one for i, one in enumerate(self.teachers)}
        found = {f"{name}.train": one.train for name, one in teachers.items() if one.finetune == "all"}
        found |= {f"compress.{i}.train": one.train for i, one in enumerate(self.compress)}
        return {"train": self.train} | found

    def as_dict(self) -> dict[str, Any]:
        """The recipe as it would be written, with every default spelled out."""
        return _plain(self)

    def toml(self) -> str:
        """The recipe as a file. Reading it again gives an equal recipe."""
        return tomli_w.dumps(self.as_dict())


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
