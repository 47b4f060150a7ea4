"""Two processes with half a batch each charge what one charges for the whole, whatever a method compares."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from kit.pairs import PAIRS, batch, charge, ready, works

from stillroom.config.plugins import choices
from stillroom.distributed.collectives import all_reduce_sum, gather_rows
from stillroom.distributed.sync_batchnorm import convert_sync_batchnorm

IMAGES = 8


def whole(pair):
    return batch(IMAGES, pair, seed=5)


def part(pair, rank, world):
    return list(whole(pair).split(world))[rank] if world > 1 else whole(pair)


def gradients(name, pair, rank, world):
    """The loss and its gradient on the student and on the method's parts, averaged over processes as DDP does."""
    student, teacher, method = ready(name, pair)
    student.eval()
    if world > 1:
        convert_sync_batchnorm(method)  # as the engine does
    loss = torch.stack(list(charge(student, teacher, method, part(pair, rank, world)).values())).sum()
    loss.backward()
    grads = [p.grad for p in [*student.parameters(), *method.parameters()] if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads]).double()
    return all_reduce_sum(flat) / world, all_reduce_sum(loss.detach().double()) / world


def steady():
    """Name and pair of every method that answers the same question twice alike: masks and directions are drawn anew."""
    for name in choices("methods"):
        pair = next(pair for pair in PAIRS if not works(name, pair))
        student, teacher, method = ready(name, pair)
        student.eval()
        again, one = copy.deepcopy(method), whole(pair)
        said = [sum(charge(student, teacher, each, one).values()).item() for each in (method, again)]
        if said[0] == said[1]:
            yield name, pair


def process(rank, world, file, names, found):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    for name, pair in names:
        grads, loss = gradients(name, pair, rank, world)
        if rank == 0:
            torch.save((grads, loss), f"{found}/{name}.pt")
    dist.barrier()  # one that leaves while the other still talks to it takes it down
    dist.destroy_process_group()


def test_methods_charge_two_processes_as_one(tmp_path):
    names = list(steady())
    assert len(names) > len(choices("methods")) // 2
    mp.spawn(process, (2, tmp_path / "meet", names, str(tmp_path)), nprocs=2)
    wrong = []
    for name, pair in names:
        grads, loss = torch.load(tmp_path / f"{name}.pt")
        alone, alone_loss = gradients(name, pair, 0, 1)
        scale = alone.abs().max().clamp_min(1e-8)
        if not (torch.isclose(loss, alone_loss, rtol=1e-4, atol=1e-8) and ((grads - alone).abs().max() / scale) < 1e-3):
            wrong.append((name, float(loss), float(alone_loss), float((grads - alone).abs().max() / scale)))
    assert not wrong, wrong


def test_alone_nothing_changes():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(x) is x and all_reduce_sum(x) is x
