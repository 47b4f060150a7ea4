"""The stages of a run that train. Each leaves a weights file; a stage whose file exists is not trained again."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillroom.config.schema import Training
from stillroom.data.dataset import Split
from stillroom.data.loader import Loader
from stillroom.data.subset import labelled_subset
from stillroom.evaluation.teacher_check import warn_weak_teacher
from stillroom.matching.method_setup import MethodSetup
from stillroom.models import load_weights, surgery
from stillroom.models.network import Network
from stillroom.stages.experiment import Experiment
from stillroom.teachers.ensemble import PRED
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.source import TeacherSource
from stillroom.teachers.teacher import Teacher
from stillroom.training.context import RunContext
from stillroom.training.distiller import Distiller
from stillroom.training.fit import FitData, fit
from stillroom.training.pull import findings, measure_terms

log = logging.getLogger("stillroom")

NUM_MEASURED = 32  # images on which the gradients of losses are compared before training


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the networks of an experiment in the folder of a run.

    Attributes:
        experiment: what is built.
        context: run folder, processes, signals, progress.
        source: decides between a live teacher and a cached one.
        seconds: stage -> how long its training took, for the stages that are finished.
        steps: stage -> how many training steps it took, likewise.
    """

    experiment: Experiment
    context: RunContext
    source: TeacherSource
    seconds: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def train_teacher(self) -> FrozenTeacher:
        """The frozen teacher. Each of several is taken as it is, gets a new head, or is trained here."""
        experiment, networks = self.experiment, self.experiment.initial_teachers()
        for stage, section in experiment.teachers.items():
            if section.finetune == "all":
                self.train(stage, networks[stage], None, section.train, images=experiment.teacher_split)
                self.load_stage(stage, networks[stage])
            elif section.finetune == "head":
                self._probe_head(stage, networks[stage])
        teacher = experiment.freeze(networks)
        members = {stage: f"{n}/{PRED}" for n, stage in enumerate(networks, 1)} if len(networks) > 1 else {}
        run, engine = self.context.run, self.context.engine
        warn_weak_teacher(teacher, members, experiment.data, experiment.task, run=run, engine=engine)
        return teacher

    def train_student(self, stage: str, teacher: FrozenTeacher | None) -> Network:
        """The student, distilled from `teacher`; without one, trained on labels alone if the task has a loss."""
        experiment = self.experiment
        network = experiment.initial_student()
        if teacher is None and not experiment.task.has_label_loss:
            if not self.context.run.weights(stage).exists():
                self._save_stage(stage, network, 0.0)
            return self.load_stage(stage, network)
        training = experiment.training
        # The baseline reads labelled images alone, in as many steps: only the teacher is compared.
        steps = training.steps if teacher else training.total_steps(len(experiment.data.splits["train"]))
        self.train(stage, network, teacher, replace(training, steps=steps))
        return self.load_stage(stage, network)

    def train(
        self,
        stage: str,
        network: Network,
        teacher: FrozenTeacher | None,
        training: Training,
        *,
        finalize: Callable[[Network], Network] = lambda trained: trained,
        cached: bool = True,
        images: Split | None = None,
    ) -> None:
        """Train a copy of `network` and save what `finalize` makes of it, unless the stage has its file already.

        Args:
            stage: names the weights file, the checkpoints and the lines of the logs.
            network: left as it is.
            teacher: None trains on the labels alone.
            training: how.
            finalize: applied to the trained network before it is saved.
            cached: whether the teacher's outputs may come from a cache.
            images: to train on; None: train, or without a teacher the labelled ones of it.
        """
        if self.context.run.weights(stage).exists():
            return
        self.context.run.note(stage=stage)
        started = time.monotonic()
        # A copy: what training changes besides weights (memory format, synchronised norms) would make it another
        # network than the one that a resumed run reads from the file.
        trained = copy.deepcopy(network)
        trained.edits = surgery.structural(trained.edits)  # training moves weights off any quantisation grid
        self.steps[stage] = self._fit(stage, trained, teacher, training, cached, images)
        self._save_stage(stage, finalize(trained.cpu()), time.monotonic() - started)

    def load_stage(self, stage: str, network: Network) -> Network:
        """`network`, as its family builds it, with the surgery and the weights of the stage's file."""
        self.context.engine.barrier()
        return load_weights(network, self.context.run.weights(stage))

    def _fit(
        self,
        stage: str,
        network: Network,
        teacher: FrozenTeacher | None,
        training: Training,
        cached: bool,
        images: Split | None,
    ) -> int:
        """Train, and return the number of steps."""
        experiment, context = self.experiment, self.context
        splits = experiment.data.splits
        setup = experiment.method_setup(network, teacher) if teacher else None
        if setup and setup.methods:
            self._record_methods(setup)
        distiller = experiment.distiller(network, setup)
        live = teacher if distiller.methods else None
        data = FitData(
            train=images if images is not None else splits["train"] if teacher else labelled_subset(splits["train"]),
            val=splits["val"],
            classes=experiment.data.classes,
            augment=experiment.augment,
            reference=None if experiment.data.labelled or not teacher else teacher.predict,
        )
        with experiment.threads(network, teacher):
            if live:
                self._warn_of_losses(distiller, live, data)
            source: Teacher | None = live
            if live and cached:
                queries = experiment.queries(live, distiller)
                source = self.source.open(queries, experiment.training, engine=context.engine, signals=context.signals)
            fit(stage, distiller, source, data, training, seed=experiment.seed, context=context)
        return training.total_steps(len(data.train))

    def _warn_of_losses(self, distiller: Distiller, teacher: FrozenTeacher, data: FitData) -> None:
        """Warn of a method that the student would hardly notice, or that leaves nothing to the labels."""
        size = min(self.experiment.training.batch, NUM_MEASURED)
        batch = Loader(data.train, batch=size, seed=self.experiment.seed, augment=data.augment).at(0)
        batch = batch.to(self.experiment.engine.device)
        terms = measure_terms(
            distiller.to(batch.images.device), teacher((batch.images,), batch.keys, distiller.teacher_taps), batch
        )
        for failure in findings(terms):
            self.context.run.warn(failure.warning)

    def _record_methods(self, setup: MethodSetup) -> None:
        """Which layers are compared: in the log before training, and in run.json for the report."""
        self.context.run.note(lessons=setup.as_dict())
        if setup.choice:
            log.info("methods: %s, because %s", setup.choice.situation, setup.choice.why)
        for name, pairs in setup.pairs.items():
            for pair in pairs:
                log.info("%s: %s", name, pair)

    def _probe_head(self, stage: str, network: Network) -> None:
        """Fit a new classifier on frozen features."""
        if not self.context.run.weights(stage).exists():
            self.context.run.note(stage=stage)
            from stillroom.training.linear_probe import linear_probe  # scikit-learn takes a second to import

            started = time.monotonic()
            data, train = self.experiment.data, self.experiment.teacher_split
            device = self.experiment.teacher_device
            score = linear_probe(network, train, data.splits["val"], device=device)
            log.info("%s: a new head for %d classes, %.1f %% of val", stage, len(data.classes), 100 * score)
            self._save_stage(stage, network, time.monotonic() - started)
        self.load_stage(stage, network)

    def _save_stage(self, stage: str, network: Network, seconds: float) -> None:
        """The stage's weights file, whose existence marks it as finished."""
        run = self.context.run
        run.save_weights(stage, network.weights(), network.metadata())
        run.drop_checkpoints(stage)
        self.seconds[stage] = round(seconds, 3)
        steps = {name: {"steps": count} for name, count in self.steps.items()}
        run.note(stages={name: {"seconds": value} | steps.get(name, {}) for name, value in self.seconds.items()})


def load_teacher(experiment: Experiment, run_weights: Callable[[str], Path]) -> FrozenTeacher:
    """The teacher of an experiment whose trained weights are files already: `run_weights(stage)` is each one's path."""
    networks = experiment.initial_teachers()
    for stage, section in experiment.teachers.items():
        if section.finetune != "none":
            load_weights(networks[stage], run_weights(stage))
    return experiment.freeze(networks)
