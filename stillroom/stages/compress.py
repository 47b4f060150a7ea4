"""The student made smaller, one compression after the other, and distilled again from the same teacher after each.

A compression starts from the output of the one before, so any order works. Each round is a training stage like any
other: it leaves a file, and is interrupted and resumed as the others are. Its initial network is a file too, so that a
resumed training trains the same network, on whichever machine it goes on.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.benchmark import latency
from stillroom.compress.compression import Compression, View
from stillroom.config.plugins import pick
from stillroom.config.recipe import AUTO
from stillroom.config.schema import Compress, Method
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.loader import in_order
from stillroom.data.sampling import sample_images
from stillroom.evaluation.validate import validate
from stillroom.io.checkpoint import save_tensors
from stillroom.io.files import atomic_write
from stillroom.models import flops, load_weights
from stillroom.models.network import Network
from stillroom.stages.experiment import Experiment
from stillroom.stages.train import Trainer
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.types import Batch, Output

log = logging.getLogger("stillroom")

NUM_IMAGES = 256  # training images that a compression may read
NUM_BATCHES, BATCH = 8, 32  # training batches that it may compute gradients of
SECONDS = 0.5  # of timing each network, for the log; the report's times are measured together

STUDENT, DISTILLED = "student", "distilled"


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage of the student, as run.json lists it for the report.

    Attributes:
        stage: its name.
        what: the compression in the recipe's words.
        score: the headline metric on val.
        macs: of a forward pass of one image.
        bytes: of its weights.
        latency_ms: median of one image in torch.
        seconds: of its training.
    """

    stage: str
    what: str
    score: float
    macs: int
    bytes: int
    latency_ms: float
    seconds: float | None


def stage_names(sections: Sequence[Compress]) -> list[str]:
    """The stages of the student, in order; the last one is always "student"."""
    found: list[str] = []
    for section in sections[:-1]:
        name = section.name.rpartition(":")[2].lower()
        count = sum(known.partition("-")[0] == name for known in found)
        found.append(name if not count else f"{name}-{count + 1}")
    return [DISTILLED, *found, STUDENT] if sections else [STUDENT]


def stage_descriptions(sections: Sequence[Compress]) -> dict[str, str]:
    """Stage -> its compression in the recipe's words: "prune, macs=0.5"."""
    stages = stage_names(sections)
    found = {stages[0]: "distilled"}
    for stage, section in zip(stages[1:], sections, strict=True):
        words = [section.name, *(f"{key}={value}" for key, value in section.arguments.items())]
        found[stage] = ", ".join(words if section.distill else [*words, "without the teacher"])
    return found


def train_and_compress(
    trainer: Trainer, sections: Sequence[Compress], teacher: FrozenTeacher, rows: Sequence[StageRow] = ()
) -> Network:
    """The student: distilled, then made smaller by each of `sections` in turn.

    Args:
        trainer: trains each stage.
        sections: of the compressions; none leaves the student as distilled.
        teacher: of every stage.
        rows: the stages that were measured before the run was interrupted.
    """
    trail, descriptions = list(rows), stage_descriptions(sections)
    (stage, what), *others = descriptions.items()
    network = trainer.train_student(stage, teacher)
    if others:
        _measure(trainer, trail, stage, what, network, teacher)
    for (stage, what), section in zip(others, sections, strict=True):
        network = _compress(trainer, stage, section, network, teacher)
        _measure(trainer, trail, stage, what, network, teacher)
    return network


def intermediate_networks(trainer: Trainer, sections: Sequence[Compress]) -> dict[str, Network]:
    """Stage -> network before each compression, in order. No barrier: only the first process needs them."""
    run = trainer.context.run
    return {
        stage: load_weights(trainer.experiment.initial_student(), run.weights(stage))
        for stage in stage_names(sections)[:-1]
    }


def compression_view(experiment: Experiment, teacher: FrozenTeacher | None) -> View:
    """What a compression may read: training images without augmentation, and the loss on them.

    The loss is the task's, or, where no image has a label, the mean squared distance to the teacher's output.
    """
    split, task = experiment.data.splits["train"], experiment.task
    rows = evenly_spaced(len(split), NUM_BATCHES * BATCH)

    def predict(images: Tensor) -> Output:
        assert teacher is not None
        return teacher.alone.predict(images)

    def loss(network: Network, batch: Batch) -> Tensor:
        output = network(batch.images)
        terms = task.loss(output, batch) if experiment.data.labelled else {}
        if terms:
            return torch.stack(list(terms.values())).sum()
        return F.mse_loss(output.pred, predict(batch.images).pred)

    return View(
        images=sample_images(split, NUM_IMAGES),
        batches=list(in_order(split, BATCH, rows=rows)),
        loss=loss,
        teacher=predict,
        seed=experiment.seed,
    )


def _compress(trainer: Trainer, stage: str, section: Compress, network: Network, teacher: FrozenTeacher) -> Network:
    """One compression: all its rounds, each of which leaves a file."""
    compression: Compression = pick("compress", section.name)(**section.arguments)
    device = trainer.context.engine.device
    uncompressed = FrozenTeacher(copy.deepcopy(network).to(device), precision=teacher.precision)
    for number in range(1, compression.rounds + 1):
        last = number == compression.rounds
        part = stage if last else f"{stage}.round-{number}"
        if not trainer.context.run.weights(part).exists():
            initial = _initial_network(trainer, part, compression, network, teacher, number)
            own = not last and compression.between != "teacher"  # the network itself, before it was compressed, teaches
            (_self_distilling(trainer) if own else trainer).train(
                part,
                initial,
                (uncompressed if own else teacher) if section.distill else None,
                section.train,
                finalize=compression.settle,
                cached=not own,
            )
        network = trainer.load_stage(part, trainer.experiment.initial_student())
    return network


def _self_distilling(trainer: Trainer) -> Trainer:
    """For a student whose teacher is its own earlier form: the recipe's methods may name layers of another network."""
    return replace(trainer, experiment=replace(trainer.experiment, methods=(Method(name=AUTO),)))


def _initial_network(
    trainer: Trainer, part: str, compression: Compression, network: Network, teacher: FrozenTeacher, number: int
) -> Network:
    """The smaller network before its training: made once, and read from its file by every process and every resume."""
    experiment, run = trainer.experiment, trainer.context.run
    path = run.checkpoints(part) / "begun.safetensors"
    if run.writes and not path.exists():
        smaller = compression.shrink(network, compression_view(experiment, teacher), number)
        log.info("%s: %s", part, _size_change(experiment, network, smaller))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temp:
            save_tensors(smaller.weights(), temp, smaller.metadata())
    trainer.context.engine.barrier()
    return load_weights(experiment.initial_student(), path)


def _size_change(experiment: Experiment, before: Network, after: Network) -> str:
    macs = [experiment.macs(network) / 1e6 for network in (before, after)]
    parameters = [flops.parameters(network) for network in (before, after)]
    return (
        f"{macs[0]:.2f} M MACs become {macs[1]:.2f} M, {parameters[0]:,} parameters become {parameters[1]:,}; "
        "training continues from there"
    )


def _measure(
    trainer: Trainer, trail: list[StageRow], stage: str, what: str, network: Network, teacher: FrozenTeacher
) -> None:
    """Measure a stage, unless it was measured before an interruption; a line of the log and of run.json."""
    run, experiment = trainer.context.run, trainer.experiment
    if not run.writes or any(row.stage == stage for row in trail):
        return
    row = _row(trainer, stage, what, network, teacher)
    trail.append(row)
    run.note(compress=[asdict(one) for one in trail])
    log.info(
        "%s (%s): %s %.1f %% on val, %.2f M MACs, %.0f kB of weights, %.2f ms",
        stage,
        what,
        experiment.task.about.title,
        100 * row.score,
        row.macs / 1e6,
        row.bytes / 1e3,
        row.latency_ms,
    )


def _row(trainer: Trainer, stage: str, what: str, network: Network, teacher: FrozenTeacher) -> StageRow:
    data, device = trainer.experiment.data, trainer.context.engine.device
    score = validate(
        copy.deepcopy(network).to(device),
        trainer.experiment.task,
        data.splits["val"],
        data.classes,
        device=device,
        reference=None if data.labelled else teacher.alone.predict,
    )
    example = sample_images(data.splits["train"], 1)
    time = latency.interleaved({stage: copy.deepcopy(network).eval()}, example, seconds=SECONDS)[stage]
    row: dict[str, Any] = {
        "macs": trainer.experiment.macs(network),
        "bytes": flops.stored_bytes(network),
        "latency_ms": time.p50,
        "seconds": trainer.seconds.get(stage),
    }
    return StageRow(stage=stage, what=what, score=score, **row)
