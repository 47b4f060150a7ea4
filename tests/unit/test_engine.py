"""What processes do together, in two of them: flags, waiting, and a teacher that is spread over both."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from stillroom.config.schema import Training
from stillroom.distributed import processes as processes_module
from stillroom.distributed.engine import Engine
from stillroom.distributed.processes import processes
from stillroom.errors import StillroomError
from stillroom.models import create_model
from stillroom.teachers.frozen import FrozenTeacher

NETWORKS = {
    "resnet14": (32, ("layer1", "layer2.0", "linear:in")),
    "timm/vit_tiny_patch16_224": (32, ("blocks.3", "blocks.11.mlp", "norm")),
}


def network(name):
    torch.manual_seed(0)
    return create_model(name, classes=10, channels=3, size=NETWORKS[name][0]).eval()


def said(one, name, rank):
    """What a network says of two images, others in each process."""
    size, taps = NETWORKS[name]
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(rank))
    return FrozenTeacher(one)((images,), torch.arange(2), taps)


def process(rank, port, folder):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    engine, found = Engine(2), {}
    found["any"] = [engine.any(flag) for flag in (False, rank == 0, rank == 1, True)]
    found["mean"] = engine.mean(torch.tensor([rank, 3.0])).tolist()
    if rank == 0:
        time.sleep(0.5)
        (folder / "written").touch()
    engine.barrier()
    found["waited"] = (folder / "written").exists()
    for name in NETWORKS:
        one = network(name)
        whole, bytes = said(one, name, rank), sum(p.nbytes for p in one.parameters())
        one = engine.shard(one)
        for turn in (1, 2):  # the second finds what the first has left
            part = said(one, name, rank)
            found[name, turn] = [
                torch.equal(whole.pred, part.pred),
                *map(torch.equal, whole.taps.values(), part.taps.values()),
            ]
        found[name, "share"] = sum(p.to_local().nbytes for p in one.parameters()) / bytes
    torch.save(found, folder / str(rank))
    engine.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, folder), nprocs=2)
    return [torch.load(folder / str(rank)) for rank in (0, 1)]


def test_a_flag_of_one_is_heard_by_all(two):
    assert [one["any"] for one in two] == [[False, True, True, True]] * 2


def test_the_mean(two):
    assert [one["mean"] for one in two] == [[0.5, 3.0]] * 2


def test_all_wait(two):
    assert all(one["waited"] for one in two)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_spread_teacher_says_the_same(two, name):
    assert all(len(one[name, turn]) == 4 and all(one[name, turn]) for one in two for turn in (1, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_holds_half_of_a_spread_teacher(two, name):
    assert all(0.45 < one[name, "share"] < 0.55 for one in two)
    assert sum(one[name, "share"] for one in two) == pytest.approx(1)


def test_alone_nothing_changes(tmp_path):
    engine, one = Engine(1), torch.nn.Linear(2, 2)
    assert engine.shard(one) is one
    assert engine.any(True) is True and engine.any(False) is False
    engine.barrier()
    with processes(folder=tmp_path) as engine:
        assert (engine.rank, engine.world, engine.first) == (0, 1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("world", "batch", "accumulate", "text"),
    [
        (2, 65, 1, "2 processes\n.*set train.batch to 64 or 66"),
        (2, 6, 2, "2 processes in 2 micro-batches each\n.*set train.batch to 4 or 8"),
        (4, 2, 1, "4 processes\n.*set train.batch to 4,"),
    ],
)
def test_a_batch_that_can_not_be_shared(world, batch, accumulate, text):
    engine = Engine(1)
    engine.world = world
    with pytest.raises(
        StillroomError, match=r"(?s)SR-R523 train.batch = \d+ can't be shared equally by " + text.replace("\n", "")
    ):
        engine.share({"train": Training(batch=batch, grad_accum_steps=accumulate)})
    engine.share({"train": Training(batch=world * accumulate * 3, grad_accum_steps=accumulate)})


def test_a_disk_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes_module, "SHARED", 0.3)
    engine = Engine(1)
    engine.world = 2
    (tmp_path / "0.stack").touch()
    with pytest.raises(StillroomError, match=r"SR-R524 process 0 on .* does not see what process 1 wrote   mine"):
        processes_module._check_shared(engine, tmp_path, Path("mine"))
    threading.Timer(0.1, (tmp_path / "1.stack").touch).start()
    processes_module._check_shared(engine, tmp_path, Path("mine"))
