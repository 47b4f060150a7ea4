"""The experiment that a recipe's sections describe: the one place where its networks and its distiller are built.

A run, `stillroom check`, `plan`, `label` and a finished run all build from here, so that what is checked is what runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from stillroom.config import schema
from stillroom.data.dataset import Dataset, Split
from stillroom.data.sampling import PixelStatistics, pixel_statistics, sample_images
from stillroom.data.subset import labelled_subset
from stillroom.distributed.one_process import Processes
from stillroom.distributed.precision import threads_for
from stillroom.matching.method_setup import NUM_IMAGES, MethodSetup, build_methods
from stillroom.models import flops
from stillroom.models.network import Network
from stillroom.stages import build
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.source import build_queries
from stillroom.training.distiller import Distiller
from stillroom.training.loss_weights import Weight


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Sections of a recipe with their data and task.

    Attributes:
        data: the images.
        task: what is predicted.
        teachers: stage -> section, see `build.teacher_sections`.
        student: its section.
        methods: their sections.
        label_weight: of the task's loss beside the methods; 0 where no image has a label.
        gradient_balancing: whether weights are ratios of gradient norms.
        training: the student's.
        augment: how training images are augmented.
        cache: how teacher outputs are stored.
        seed: of initial weights, data order and augmentation.
        engine: the processes.
    """

    data: Dataset
    task: Task
    teachers: Mapping[str, schema.Teacher]
    student: schema.Student
    methods: tuple[schema.Method, ...]
    label_weight: float
    gradient_balancing: bool
    training: schema.Training
    augment: schema.Augment
    cache: schema.Cache
    seed: int
    engine: Processes

    @cached_property
    def pixels(self) -> PixelStatistics:
        """Computed once for all networks: images that are decoded on demand take a while."""
        return pixel_statistics(self.data.splits["train"])

    @property
    def teacher_split(self) -> Split:
        """The labelled images that a teacher is trained on: its own, or those of the student."""
        splits = self.data.splits
        return labelled_subset(splits.get("teacher", splits["train"]))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the data."""
        return (self.data.channels, self.data.size, self.data.size)

    @property
    def teacher_device(self) -> torch.device:
        """Of the whole teacher: the CPU where its weights are sharded over the devices."""
        return torch.device("cpu") if self._sharded else self.engine.device

    @property
    def _sharded(self) -> bool:
        return self.teachers["teacher"].shard and self.engine.world > 1

    def initial_student(self) -> Network:
        """The student before training; equal each time."""
        return build.build_network(self.student, self.data, self.task, self.pixels, seed=self.seed)

    def initial_teachers(self) -> dict[str, Network]:
        """Stage -> network of every teacher before any training here; equal each time."""
        return build.build_teachers(self.teachers, self.data, self.task, self.pixels, seed=self.seed)

    def freeze(self, networks: Mapping[str, Network]) -> FrozenTeacher:
        """All teachers as the one that the student is compared with, on its device."""
        whole = build.combine_teachers(self.teachers, list(networks.values()))
        # Sharded before its memory format changes: shards are cut from weights in their contiguous order.
        spread = self.engine.shard(copy.deepcopy(whole)) if self._sharded else None
        whole.to(self.teacher_device)
        whole.to(memory_format=torch.channels_last)
        precision = build.teacher_precision(self.teachers["teacher"], self.training, self.engine.device)
        return build.freeze(self.teachers, whole, precision=precision, spread=spread)

    def method_setup(self, student: Network, teacher: FrozenTeacher) -> MethodSetup:
        """The methods, paired with layers of both networks and initialised."""
        return build_methods(
            self.methods,
            student,
            teacher,
            sample_images(self.data.splits["train"], NUM_IMAGES).to(self.teacher_device),
            seed=self.seed,
            labels=self.label_weight > 0,
        )

    def distiller(self, student: Network, setup: MethodSetup | None) -> Distiller:
        """What is trained: the student with its methods; without any it learns from the labels alone."""
        if setup is None:
            return Distiller(student, self.task, {}, {"task": 1.0})
        weights = setup.weights | {"task": Weight(self.label_weight)}
        return Distiller(student, self.task, setup.methods, weights, balanced=self.gradient_balancing)

    def queries(self, teacher: FrozenTeacher, distiller: Distiller) -> TeacherQueries:
        """Every forward pass of the teacher that training the distiller needs."""
        return build_queries(
            teacher,
            self.data,
            self.teachers,
            augment=self.augment,
            cache=self.cache,
            taps=distiller.teacher_taps,
            temperatures=distiller.temperatures,
            batch=self.training.batch // self.engine.world // self.training.grad_accum_steps,
        )

    def macs(self, network: nn.Module) -> int:
        """Multiply-accumulates of a forward pass of one image."""
        return flops.macs(network, self.image_shape)

    def threads(self, network: Network, teacher: FrozenTeacher | None) -> AbstractContextManager[None]:
        """CPU threads that suit a step of both networks.

        With a cached teacher as many as with a live one: the number of threads decides the order of sums.
        """
        macs = self.macs(network) + (self.macs(teacher.network) if teacher else 0)
        return threads_for(macs, self.engine.device)
