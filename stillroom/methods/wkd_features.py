"""Match the mean and deviation of each channel. Lv, Yang, Li 2024 (WKD-F), https://arxiv.org/abs/2412.08139."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.methods._checks import at_least
from stillroom.methods._features import to_map
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

EPS = 1e-5  # added to variances, as the authors do: the square root is not differentiable at 0


def wkd_features_loss(student: Tensor, teacher: Tensor, ratio: float = 1.0, grid: int = 1) -> Tensor:
    """L = ratio ||mu_s - mu_t||^2 + ||sigma_s - sigma_t||^2: sums over channels, a mean over images and cells.

    mu and sigma = sqrt(var + 1e-5) are those of a channel over the positions of one cell of one image. With ratio 1
    this is the squared 2-Wasserstein distance of two Gaussians with diagonal covariance.

    Args:
        student: [B, C, h, w].
        teacher: [B, C, H, W]; height and width may differ.
        ratio: at least 0; weight of the means.
        grid: cells per side, at least 1; neighbouring cells share a position where the side is not a multiple of it.

    Returns:
        Scalar, at least 0; 0 for equal means and deviations, wherever in the cell the values are, and for an empty
        batch. Variances are unbiased, as in the authors' code; the variance of a single position is 0.
    """
    if student.numel() == 0:
        return student.sum()
    (mean_s, std_s), (mean_t, std_t) = moments(student, grid), moments(teacher, grid)
    return (ratio * (mean_s - mean_t).square() + (std_s - std_t).square()).sum(1).mean()


def moments(feature: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Mean and sqrt(var + 1e-5) of each channel in each cell: [B, C, h, w] -> two of [B, C, grid^2]."""
    rows, columns = (_parts(length, grid) for length in feature.shape[2:])
    cells = [at_least_float32(feature)[:, :, y, x].flatten(2) for y in rows for x in columns]
    mean = [cell.mean(2) for cell in cells]
    var = [cell.var(2, correction=min(1, cell.shape[2] - 1)) for cell in cells]
    return torch.stack(mean, 2), (torch.stack(var, 2) + EPS).sqrt()


def _parts(length: int, grid: int) -> list[slice]:
    """`grid` parts of a side, floor(i n / g) to ceil((i + 1) n / g): none is empty, together they cover the side."""
    return [slice(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)]


class WKDFeatures(Method):
    """Wasserstein distance between the two networks' features, modelled as Gaussians; a 1x1 convolution maps the width.

    Differs: the authors' convolution is followed by batch norm and ReLU, which suits teachers whose maps end in a ReLU
    and batches of many images; here it is used alone. Their weight decreases to 0 along a cosine after epoch 150 of 240
    on CIFAR-100; here that is `decay_start = 0.625` in the recipe. On ImageNet they use ratio 2, grid 4, weight 0.02
    and a bottleneck as the projector. Several pairs of taps are averaged.

    Use: between convolutional networks, also with maps of different sizes, since only statistics are compared. The
    authors: ResNet-32x4 to 8x4 on CIFAR-100 72.50 without a teacher, 76.77 with this.

    Avoid: for maps with few positions, like the last map of small images: the deviation of a 1x1 map is not
    informative. Across families features are not comparable; take `ofa` or a method of predictions.

    Args:
        ratio: at least 0; weight of the means, relative to the deviations.
        grid: at least 1; statistics of grid x grid cells instead of the whole map.
        student_taps: features of the student; if empty, its last map.
        teacher_taps: features of the teacher; the i-th is compared with the student's i-th.

    Raises:
        ValueError: the ratio is below 0, or the grid below 1.
    """

    weight = 0.08
    default_taps = "last"

    def __init__(
        self,
        *,
        ratio: float = 4.0,
        grid: int = 1,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        at_least(0, ratio=ratio)
        at_least(1, grid=grid)
        self.ratio, self.grid = ratio, grid
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.regress = nn.ModuleList()

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a convolution for each pair."""
        self.regress = nn.ModuleList()
        for s, t in zip(self.student_taps, self.teacher_taps, strict=True):
            ours, theirs = to_map(student.taps[s]), to_map(teacher.taps[t])
            self.regress.append(nn.Conv2d(ours.shape[1], theirs.shape[1], 1).to(ours.device))

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"wasserstein": ...}`, see `wkd_features_loss`."""
        losses = [
            wkd_features_loss(regress(to_map(student.taps[s])), to_map(teacher.taps[t]), self.ratio, self.grid)
            for regress, s, t in zip(self.regress, self.student_taps, self.teacher_taps, strict=True)
        ]
        return {"wasserstein": torch.stack(losses).mean()}
