"""Training that diverges, and torch.compile."""

from __future__ import annotations

from stillroom.errors import ResourceError, TrainingError


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
