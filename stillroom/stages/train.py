"""The stages of a run that train something. Each leaves a file; a stage whose file is there is not done again."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from stillroom.config.schema import Recipe, Training
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.data.subset import known
from stillroom.distributed.engine import Engine
from stillroom.distributed.precision import threads_for
from stillroom.distributed.signals import Signals
from stillroom.evaluation import teacher_check
from stillroom.io.run_dir import RunDir
from stillroom.matching import method_setup
from stillroom.models import flops, load_into, surgery
from stillroom.models.network import Network
from stillroom.stages import build
from stillroom.tasks.task import Task
from stillroom.teachers import source
from stillroom.teachers.ensemble import PRED
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.teachers.teacher import Teacher
from stillroom.training.distiller import Distiller
from stillroom.training.fit import Progress, fit
from stillroom.training.linear_probe import linear_probe
from stillroom.training.loss_weights import Weight

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Stages:
    """What all stages of a run share.

    Args:
        recipe: what to do.
        data: the images.
        task: what the labels ask for.
        run: where to write.
        engine: the processes that do it.
        signals: who may ask it to end.
        progress: told after every training step.
        students: that share the teacher's answers: this run's, and those of the same recipe's other seeds.
    """

    recipe: Recipe
    data: Dataset
    task: Task
    run: RunDir
    engine: Engine
    signals: Signals
    progress: Progress
    students: int = 1

    @property
    def seed(self) -> int:
        """Of first weights, order and augmentation."""
        return self.recipe.seeds[0]

    def teacher(self) -> FrozenTeacher:
        """The teacher; several are one. Each is as it is, has its head fitted to the classes, or is trained here."""
        section, networks = self.recipe.teacher, self.begun()
        stages = build.teacher_sections(section)
        for stage, one in stages.items():
            if one.fit == "all":
                self.train(stage, networks[stage], None, one.train)
                self.filled(stage, networks[stage])
            elif one.fit == "head":
                self._fit_head(stage, networks[stage])
        teacher = self.asked(networks)
        members = {stage: f"{n}/{PRED}" for n, stage in enumerate(stages, 1)} if section.others else {}
        teacher_check.warn_weak_teacher(teacher, members, self.data, self.task, run=self.run, engine=self.engine)
        return teacher

    def begun(self) -> dict[str, Network]:
        """The networks of all teachers, before anything is trained: stage -> network."""
        stages = build.teacher_sections(self.recipe.teacher)
        return build.build_teachers(stages, self.data, self.task, self._pixels, seed=self.seed)

    def asked(self, networks: Mapping[str, Network]) -> FrozenTeacher:
        """All teachers as the one that is asked."""
        whole = build.combine_teachers(self.recipe.teacher, list(networks.values()))
        # Spread before its layout changes: parts are cut from weights that lie in their plain order.
        spread = self.engine.shard(copy.deepcopy(whole)) if self._spreads else None
        whole.to(self._home)
        whole.to(memory_format=torch.channels_last)
        return build.freeze(self.recipe, whole, self.engine.device, spread)

    def untrained(self) -> Network:
        """The student as it begins."""
        return build.build_network(self.recipe.student, self.data, self.task, self._pixels, seed=self.seed)

    def student(self, stage: str, teacher: FrozenTeacher | None) -> Network:
        """The student, taught by `teacher`; by the labels alone where there is none, if labels teach."""
        network = self.untrained()
        if teacher is None and not self.task.has_label_loss:
            if not self.run.weights(stage).exists():
                self._leave(stage, network, 0.0)
            return self.filled(stage, network)
        training = self.recipe.train
        # Untaught, it learns from images with a label alone; in as many steps, so that it is teaching that is compared.
        steps = training.steps if teacher else training.total_steps(len(self.data.splits["train"]))
        self.train(stage, network, teacher, replace(training, steps=steps))
        return self.filled(stage, network)

    @property
    def _spreads(self) -> bool:
        """Whether no device has to hold the whole teacher."""
        return self.recipe.teacher.shard and self.engine.world > 1

    @property
    def _home(self) -> torch.device:
        """Where the whole teacher is."""
        return torch.device("cpu") if self._spreads else self.engine.device

    @cached_property
    def _pixels(self) -> sampling.PixelStatistics:
        """Read once for all networks: where images are decoded on request, it takes a while."""
        return sampling.pixel_statistics(self.data.splits["train"])

    def train(
        self,
        stage: str,
        network: Network,
        teacher: FrozenTeacher | None,
        training: Training,
        *,
        settle: Callable[[Network], Network] = lambda trained: trained,
        kept: bool = True,
    ) -> None:
        """Train a copy of `network` and leave what `settle` makes of it, unless the stage has left its file already.

        `kept` says whether the teacher's answers may come from a cache.
        """
        if self.run.weights(stage).exists():
            return
        self.run.note(stage=stage)
        started = time.monotonic()
        # A copy is trained: what training does to a network besides its weights (memory layout, norms that talk to
        # other processes) would make it another network than the one that a resumed run reads from the file.
        trained = copy.deepcopy(network)
        trained.form = surgery.structural(trained.form)  # training takes weights off whatever grid they were on
        self._learn(stage, trained, teacher, training, kept)
        self._leave(stage, settle(trained.cpu()), time.monotonic() - started)

    def filled(self, stage: str, network: Network) -> Network:
        """`network`, as its family builds it, with the form and the weights that the stage has left."""
        self.engine.barrier()
        return load_into(network, self.run.weights(stage))

    def _learn(
        self, stage: str, network: Network, teacher: FrozenTeacher | None, training: Training, kept: bool
    ) -> None:
        splits = self.data.splits
        learner = self.learner(network, teacher)
        asked = teacher if learner.methods else None
        with self.threads(network, teacher):
            fit(
                stage,
                learner,
                self._source(asked, learner) if asked and kept else asked,
                train_split=splits["train"] if teacher else known(splits["train"]),
                val_split=splits["val"],
                classes=self.data.classes,
                training=training,
                augment=self.recipe.augment,
                seed=self.seed,
                engine=self.engine,
                run=self.run,
                signals=self.signals,
                progress=self.progress,
                judge=None if self.data.labelled or not teacher else teacher.speak,
            )

    def learner(self, network: Network, teacher: FrozenTeacher | None) -> Distiller:
        """A network with all that teaches it."""
        if teacher is None:
            return Distiller(network, self.task, {}, {"task": 1.0})
        images = sampling.sample_images(self.data.splits["train"], method_setup.LOOKS).to(self._home)
        taught = method_setup.build_methods(self.recipe, network, teacher, images, seed=self.seed)
        self._say(taught)
        weights = taught.weights | {"task": Weight(self.recipe.task.weight)}
        return Distiller(network, self.task, taught.methods, weights, balanced=self.recipe.balance)

    def threads(self, network: Network, teacher: FrozenTeacher | None) -> AbstractContextManager[None]:
        """As many as a step of both is worth: whether the teacher is asked in it or was before changes no number."""
        macs = self.macs(network) + (self.macs(teacher.network) if teacher else 0)
        return threads_for(macs, self.engine.device)

    def asking(self, teacher: FrozenTeacher, learner: Distiller) -> TeacherQueries:
        """The teacher, with all that the learner's methods will want to hear of it."""
        return source.build_queries(
            self.recipe,
            self.data,
            teacher,
            taps=learner.teacher_taps,
            temperatures=learner.temperatures,
            world=self.engine.world,
        )

    def _source(self, teacher: FrozenTeacher, learner: Distiller) -> Teacher:
        asking = self.asking(teacher, learner)
        looks = self.students * source.num_queries(asking, self.recipe.train)
        return source.live_or_cached(asking, looks, run=self.run, engine=self.engine, signals=self.signals)

    def _say(self, taught: method_setup.MethodSetup) -> None:
        """Who learns what from where: to the log before training, and into run.json."""
        if not taught.methods:
            return
        self.run.note(lessons=taught.as_dict())
        if taught.choice:
            log.info("methods: %s, because %s", taught.choice.situation, taught.choice.why)
        for name, pairs in taught.pairs.items():
            for pair in pairs:
                log.info("%s: %s", name, pair)

    def macs(self, network: nn.Module) -> int:
        """Multiply-accumulates of a network for one of the images."""
        return flops.macs(network, (self.data.channels, self.data.size, self.data.size))

    def _fit_head(self, stage: str, network: Network) -> Network:
        if not self.run.weights(stage).exists():
            self.run.note(stage=stage)
            started = time.monotonic()
            splits = self.data.splits
            found = linear_probe(network, splits["train"], splits["val"], device=self._home)
            log.info("%s: a new head for %d classes, %.1f %% of val", stage, len(self.data.classes), 100 * found)
            self._leave(stage, network, time.monotonic() - started)
        return self.filled(stage, network)

    def _leave(self, stage: str, network: Network, seconds: float) -> None:
        """The stage's file, which also says that the stage is done."""
        self.run.save_weights(stage, network.weights(), network.metadata())
        self.run.drop_checkpoints(stage)
        stages = self.run.info.get("stages", {})
        self.run.note(stages=stages | {stage: stages.get(stage, {}) | {"seconds": round(seconds, 3)}})
