"""The limit: a loop for this one student, these images and this machine, with nothing in it that can be left out.

Images lie in memory, padded, channels last; one background thread cuts, flips and normalises the next batches; bfloat16
where the processor has it; the fused optimiser; no number leaves the step.
"""

from __future__ import annotations

import queue
import threading

import networks
import numpy as np
import torch
import torch.nn.functional as F
from images import arrays
from job import DECAY, LR, MEAN, MOMENTUM, SHIFT, SIDE, STD, Clock, Enough, Job


def run(job: Job) -> dict:
    network = networks.student(job.seed).to(job.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True, fused=True
    )
    clock, stream = Clock(job), batches(job)
    try:
        while True:
            images, labels = (part.to(job.device, non_blocking=True) for part in stream.get())
            with job.autocast():
                loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clock.tick()
    except Enough:
        return clock.report()


def batches(job: Job) -> queue.Queue:
    """Batches without end, two ahead of the step."""
    ready: queue.Queue = queue.Queue(2)

    def work() -> None:
        images, labels = arrays(job.folder)
        padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), (1, 2))
        scale, level = (np.float32(part) for part in (1 / (255 * np.array(STD)), np.array(MEAN) / np.array(STD)))
        chance = np.random.default_rng(job.seed)
        while True:
            order = chance.permutation(len(labels))
            for start in range(0, len(order) - job.batch + 1, job.batch):
                rows = order[start : start + job.batch]
                top, left = chance.integers(0, 2 * SHIFT + 1, (2, job.batch))
                cut = np.moveaxis(windows[rows, top, left], 1, 3)
                flipped = chance.random(job.batch) < 0.5
                cut = np.where(flipped[:, None, None, None], cut[:, :, ::-1], cut)
                pixels = np.ascontiguousarray(cut * scale - level)
                pair = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels[rows])
                ready.put(tuple(part.pin_memory() for part in pair) if job.device.type == "cuda" else pair)

    threading.Thread(target=work, daemon=True).start()
    return ready
