"""The student made smaller, one compression after the other; each is taught by the same teacher as the student was.

A compression begins with what the one before left, so any order works. Each round of one is a stage like any other: it
leaves a file, it is interrupted and resumed as the others are. What it begins with is a file too, so that a resumed
training trains the very same network, wherever it goes on.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.benchmark import latency
from stillroom.compress.compression import Compression, CompressionContext
from stillroom.config.plugins import pick
from stillroom.config.recipe import AUTO
from stillroom.config.schema import Compress, Method, Recipe
from stillroom.data import sampling
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.loader import in_order
from stillroom.evaluation.validate import validate
from stillroom.io.checkpoint import save_tensors
from stillroom.io.files import temporary
from stillroom.models import flops, load_into
from stillroom.models.network import Network
from stillroom.stages.train import Stages
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.types import Batch, Output

log = logging.getLogger("stillroom")

LOOKED_AT = 256  # training images that a compression may look at
BATCHES, BATCH = 8, 32  # training batches that it may ask gradients of
SECONDS = 0.5  # of timing each network of the chain, for the log; the report's times are taken together

STUDENT, DISTILLED = "student", "distilled"


def stage_names(recipe: Recipe) -> list[str]:
    """The stages of the student, in order; the last one is always "student"."""
    found: list[str] = []
    for section in recipe.compress[:-1]:
        name = section.name.rpartition(":")[2].lower()
        count = sum(known.partition("-")[0] == name for known in found)
        found.append(name if not count else f"{name}-{count + 1}")
    return [DISTILLED, *found, STUDENT] if recipe.compress else [STUDENT]


def stage_descriptions(recipe: Recipe) -> dict[str, str]:
    """What made each stage, in the recipe's words: "prune, macs=0.5"."""
    found = {stage_names(recipe)[0]: "distilled"}
    for stage, section in zip(stage_names(recipe)[1:], recipe.compress, strict=True):
        words = [section.name, *(f"{key}={value}" for key, value in section.arguments.items())]
        found[stage] = ", ".join(words if section.taught else [*words, "without the teacher"])
    return found


def compress(stages: Stages, teacher: FrozenTeacher) -> Network:
    """The student, taught and then made smaller as `[[compress]]` says; where it says nothing, only taught."""
    stage, *others = stage_names(stages.recipe)
    network = stages.student(stage, teacher)
    if others:
        _tell(stages, stage, network, teacher)
    for stage, section in zip(others, stages.recipe.compress, strict=True):
        network = _smaller(stages, stage, section, network, teacher)
        _tell(stages, stage, network, teacher)
    return network


def intermediate_networks(stages: Stages) -> dict[str, Network]:
    """The networks that the student was on its way, in order: stage -> network."""
    # Asked by the first process alone, so nobody is waited for.
    return {
        stage: load_into(stages.untrained(), stages.run.weights(stage)) for stage in stage_names(stages.recipe)[:-1]
    }


def _smaller(stages: Stages, stage: str, section: Compress, network: Network, teacher: FrozenTeacher) -> Network:
    """One compression: all its rounds, each of which leaves a file."""
    compression: Compression = pick("compress", section.name)(**section.arguments)
    before = FrozenTeacher(copy.deepcopy(network).to(stages.engine.device), precision=teacher.precision)
    for round in range(1, compression.rounds + 1):
        last = round == compression.rounds
        part = stage if last else f"{stage}.round-{round}"
        speaker = teacher if last or compression.interim_teacher == "teacher" else before
        if not stages.run.weights(part).exists():
            begun = _begun(stages, part, compression, network, teacher, round)
            who, own = (stages, True) if speaker is teacher else (_among_themselves(stages), False)
            taught_by = speaker if section.taught else None
            who.train(part, begun, taught_by, section.train, settle=compression.finalize, kept=own)
        network = stages.filled(part, stages.untrained())
    return network


def _among_themselves(stages: Stages) -> Stages:
    """For a student that is taught by what it was before: the recipe's methods may name places of another network."""
    return replace(stages, recipe=replace(stages.recipe, methods=(Method(name=AUTO),)))


def _begun(
    stages: Stages, part: str, compression: Compression, network: Network, teacher: FrozenTeacher, round: int
) -> Network:
    """The smaller network before its training: made once, and read from its file by every process and every resume."""
    path = stages.run.checkpoints(part) / "begun.safetensors"
    if stages.run.writes and not path.exists():
        shrunk = compression.shrink(network, view(stages, teacher), round)
        log.info("%s: %s", part, _size(network, shrunk, stages))
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as temp:
            save_tensors(shrunk.weights(), temp, shrunk.metadata())
    stages.engine.barrier()
    return load_into(stages.untrained(), path)


def view(stages: Stages, teacher: FrozenTeacher | None) -> CompressionContext:
    """What a compression may look at: training images as they are, what labels or else the teacher charge for them."""
    split, task = stages.data.splits["train"], stages.task
    rows = evenly_spaced(len(split), BATCHES * BATCH)

    def speak(images: Tensor) -> Output:
        assert teacher is not None
        return teacher.alone.speak(images)

    def loss(network: Network, batch: Batch) -> Tensor:
        stage_descriptions = network(batch.images)
        terms = task.loss(stage_descriptions, batch) if stages.data.labelled else {}
        if terms:
            return torch.stack(list(terms.values())).sum()
        return F.mse_loss(stage_descriptions.pred, speak(batch.images).pred)

    return CompressionContext(
        images=sampling.sample_images(split, LOOKED_AT),
        batches=list(in_order(split, BATCH, rows=rows)),
        loss=loss,
        teacher=speak,
        seed=stages.seed,
    )


def _size(before: Network, after: Network, stages: Stages) -> str:
    macs = [stages.macs(network) / 1e6 for network in (before, after)]
    numbers = [flops.parameters(network) for network in (before, after)]
    return (
        f"{macs[0]:.2f} M MACs become {macs[1]:.2f} M, {numbers[0]:,} parameters become {numbers[1]:,}; "
        "training goes on from there"
    )


def _tell(stages: Stages, stage: str, network: Network, teacher: FrozenTeacher) -> None:
    """A line of the chain's trail, in the log and in `run.json`: how right it is on val, its work, size and time."""
    trail = stages.run.info.get("compress", [])
    if not stages.run.writes or any(row["stage"] == stage for row in trail):
        return
    engine, data = stages.engine, stages.data
    judge = None if data.labelled else teacher.alone.speak
    asked = copy.deepcopy(network).to(engine.device).eval()
    found = validate(asked, stages.task, data.splits["val"], data.classes, 32, engine, judge)
    example = sampling.sample_images(data.splits["train"], 1)
    time = latency.interleaved({stage: copy.deepcopy(network).eval()}, example, seconds=SECONDS)[stage]
    row: dict[str, Any] = {
        "stage": stage,
        "what": stage_descriptions(stages.recipe)[stage],
        "score": found,
        "macs": stages.macs(network),
        "bytes": flops.stored(network),
        "latency_ms": time.p50,
        "seconds": stages.run.info.get("stages", {}).get(stage, {}).get("seconds"),
    }
    stages.run.note(compress=[*trail, row])
    log.info(
        "%s (%s): %s %.1f %% on val, %.2f M MACs, %.0f kB of weights, %.2f ms",
        stage,
        row["what"],
        stages.task.info.title,
        100 * found,
        row["macs"] / 1e6,
        row["bytes"] / 1e3,
        time.p50,
    )
