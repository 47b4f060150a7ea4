"""Training that diverges, and torch.compile."""

from __future__ import annotations

from stillroom.errors import ModelError, ResourceError, TrainingError


class TrainingDiverged(TrainingError):
    code = "SR-E601"
    what = "training diverged: {stage}, step {step}"
    why = "the numbers stayed infinite or undefined through two restores with halved learning rates: {terms}"
    effect = "stopped; the weights before it and the number of the batch are in {folder}"
    fix = "lower train.lr, use train.precision='float32', or inspect that batch of images"


class CompileFailed(ResourceError):
    code = "SR-R530"
    what = "torch.compile can't build the student's forward pass"
    why = "{problem}"
    effect = "nothing was trained"
    fix = "install a C++ compiler (g++, or name one in CXX), or train without: train.compile=false"


class WeakLoss(ModelError):
    code = "SR-M337"
    what = "{method} pulls at the student with {ratio:.2g} of the labels' gradient"
    why = "on one batch its weighted gradient is below {least:g} of theirs: the student would hardly notice the teacher"
    effect = "training goes on with it"
    fix = "raise its weight, or set gradient_balancing = true; with temperature or standardised, look at the logits"


class DominantLoss(ModelError):
    code = "SR-M338"
    what = "{method} pulls at the student {ratio:.0f} times as hard as the labels"
    why = "on one batch its weighted gradient is above {most:g} times theirs: the labels would hardly count"
    effect = "training goes on with it"
    fix = "lower its weight, or set gradient_balancing = true, which makes weights ratios of gradients"
