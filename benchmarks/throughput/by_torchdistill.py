"""torchdistill as its examples/torchvision/image_classification.py drives it: a box made from a YAML file.

It has no mixed precision of its own, so it always computes in float32. Its examples leave the teacher in training mode
(the box does not touch it since 1.0); here it is in inference mode, which is right and not slower.
"""

from __future__ import annotations

from pathlib import Path

import networks
from job import Clock, Enough, Job
from torchdistill.common import yaml_util
from torchdistill.core.distillation import get_distillation_box
from torchdistill.misc.log import MetricLogger, SmoothedValue, set_basic_log_config
from torchdistill.models.registry import get_model, register_model

register_model(networks.student, key="student")
register_model(networks.teacher, key="teacher")


def run(job: Job) -> dict:
    set_basic_log_config()
    config = configured(job)
    models = {side: get_model(side, **config["models"][side]["kwargs"]).to(job.device) for side in config["models"]}
    train = config["train"]
    box = get_distillation_box(
        models["teacher"], models["student"], config["datasets"], train, job.device, None, False, 1
    )
    clock = Clock(job)
    try:
        for number in range(box.num_epochs):
            box.pre_epoch_process(epoch=number)
            epoch(job, box, number, train["log_freq"], clock)
            box.post_epoch_process()
    except Enough:
        return clock.report()
    raise RuntimeError("the training ended before the clock did")


def configured(job: Job) -> dict:
    """The YAML file beside this one, with the job's values."""
    text = Path(__file__).with_name("torchdistill.yaml").read_text(encoding="utf-8")
    values = {name: getattr(job, name) for name in ("folder", "weights", "batch", "workers", "seed")}
    values["pinned"] = job.device.type == "cuda"
    for name, value in values.items():
        text = text.replace(f"${name}", str(value))
    filled = job.folder / "torchdistill.yaml"
    filled.write_text(text, encoding="utf-8")
    return yaml_util.load_yaml_file(str(filled))


def epoch(job: Job, box, number: int, log_freq: int, clock: Clock) -> None:
    log = MetricLogger(delimiter="  ")
    log.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    for images, target, extra in log.log_every(box.train_data_loader, log_freq, f"Epoch: [{number}]"):
        images, target = images.to(job.device), target.to(job.device)
        loss = box.forward_process(images, target, extra)
        box.post_forward_process(loss=loss)
        log.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        clock.tick(loss.item())
