"""timm's logit distillation as its train.py drives it: its loader with the prefetcher, its task, its optimiser.

With `auto` as with `--amp --amp-dtype bfloat16 --channels-last`, else `--channels-last` alone. The crop is the one that
DeiT gives small images in place of timm's, which is made for ImageNet.
"""

from __future__ import annotations

import logging

import networks
import torch
from images import Pictures
from job import DECAY, LR, MEAN, MOMENTUM, SHIFT, SIDE, STD, TEMPERATURE, WEIGHT, Clock, Enough, Job
from timm import utils
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.task import LogitDistillationTask
from torch import nn
from torchvision.transforms import RandomCrop

LOG_EVERY = 50

log = logging.getLogger("timm")


def run(job: Job) -> dict:
    student, teacher = networks.student(job.seed), networks.teacher(job.weights)
    for network in (student, teacher):
        network.pretrained_cfg = {"mean": MEAN, "std": STD}
        network.num_classes, network.in_chans = 10, 3
        network.to(job.device, memory_format=torch.channels_last)
    task = LogitDistillationTask(
        student_model=student,
        teacher_model=teacher,
        criterion=nn.CrossEntropyLoss(),
        task_loss_weight=1.0,
        distill_loss_weight=WEIGHT,
        temperature=TEMPERATURE,
        device=job.device,
    )
    optimizer = create_optimizer_v2(student, opt="sgd", lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    clock = Clock(job)
    try:
        while True:
            epoch(job, task, loader(job), optimizer, clock)
    except Enough:
        return clock.report()


def loader(job: Job):
    made = create_loader(
        Pictures(str(job.folder)),
        input_size=(3, SIDE, SIDE),
        batch_size=job.batch,
        is_training=True,
        color_jitter=0.0,
        mean=MEAN,
        std=STD,
        num_workers=job.workers,
        pin_memory=job.device.type == "cuda",
        device=job.device,
    )
    made.dataset.transform.transforms[0] = RandomCrop(SIDE, padding=SHIFT)
    return made


def epoch(job: Job, task, batches, optimizer, clock: Clock) -> None:
    task.train()
    losses = utils.AverageMeter()
    optimizer.zero_grad()
    for number, (images, target) in enumerate(batches):
        images = images.contiguous(memory_format=torch.channels_last)
        with job.autocast():
            loss = task(images, target)["loss"]
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), images.size(0))
        optimizer.zero_grad()
        if number % LOG_EVERY == 0:
            log.info(f"Loss: {losses.val:#.3g} ({losses.avg:#.3g})")
        clock.tick(losses.val)
