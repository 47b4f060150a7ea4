"""Decompositions of a layer's weights into products of small tensors: SVD, Tucker-2, CP and spatial, in float64.

Weights are [O, C, h, w]; those of a linear layer are [O, C, 1, 1]. The results are the weights of the layers of
`stillroom.models.surgery.factored.thin_layers`, in their order.
"""

from __future__ import annotations

import torch
from torch import Tensor

SWEEPS = 3
"""Of Tucker-2's alternating SVDs, which start near the optimum."""

ALS_SWEEPS = 60
"""Most sweeps of CP's alternating least squares."""


def svd(weight: Tensor, rank: int) -> list[Tensor]:
    """[r, C, h, w] and [O, r, 1, 1]: the nearest matrix of rank r in the Frobenius norm (Eckart and Young 1936).

    The squared error is the sum of the squared singular values from the (r + 1)th on.
    """
    left, right = _split(weight.double().flatten(1), rank)
    return [right.unflatten(1, weight.shape[1:]), left[:, :, None, None]]


def spatial(weight: Tensor, rank: int) -> list[Tensor]:
    """[r, C, h, 1] and [O, r, 1, w], from the SVD of the kernel as a (C h) x (O w) matrix.

    Jaderberg et al. 2014, https://arxiv.org/abs/1405.3866, scheme 2. Differs: the authors use gradient descent; the SVD
    gives the optimum.
    """
    outside, inside, high, wide = weight.shape
    left, right = _split(spatial_matrix(weight), rank)
    down = left.T.reshape(rank, inside, high, 1)
    return [down, right.reshape(rank, outside, 1, wide).transpose(0, 1)]


def tucker(weight: Tensor, inner: int, outer: int) -> list[Tensor]:
    """[r1, C, 1, 1], [r2, r1, h, w] and [O, r2, 1, 1]: Tucker-2.

    Kim et al. 2016, https://arxiv.org/abs/1511.06530. Differs: the authors estimate the ranks by a Bayesian method. The
    bases are the leading singular vectors of the two unfoldings, then of the unfoldings projected onto the other basis
    (HOOI).
    """
    weight = weight.double()
    given = _leading(weight.transpose(0, 1).flatten(1), inner)  # [C, r1]
    made = _leading(weight.flatten(1), outer)  # [O, r2]
    for _ in range(SWEEPS):
        given = _leading(torch.einsum("ochw,or->crhw", weight, made).flatten(1), inner)
        made = _leading(torch.einsum("ochw,cr->orhw", weight, given).flatten(1), outer)
    core = torch.einsum("ochw,cr,os->srhw", weight, given, made)
    return [given.T[:, :, None, None], core, made[:, :, None, None]]


def cp(weight: Tensor, rank: int, seed: int = 0) -> list[Tensor]:
    """[r, C, 1, 1], [r, 1, h, 1], [r, 1, 1, w] and [O, r, 1, 1]: a sum of r outer products.

    Lebedev et al. 2015, https://arxiv.org/abs/1412.6553. Differs: the authors use non-linear least squares; here it is
    alternating least squares from a random start, with a small ridge (1e-9 of the mean of the diagonal), until a sweep
    lowers the error by less than 1e-6 of the weight's norm.
    """
    weight = weight.double()
    draw = torch.Generator().manual_seed(seed)
    factors = [torch.randn(size, rank, generator=draw, dtype=weight.dtype) for size in weight.shape]
    scale, previous = weight.norm().clamp_min(torch.finfo(weight.dtype).tiny), float("inf")
    for _ in range(ALS_SWEEPS):
        for axis in range(4):
            others = [factor for other, factor in enumerate(factors) if other != axis]
            product = _khatri_rao(others)
            grams = torch.stack([factor.T @ factor for factor in others]).prod(0)
            ridge = 1e-9 * grams.diagonal().mean() * torch.eye(rank, dtype=weight.dtype)
            unfolded = weight.movedim(axis, 0).flatten(1)
            factors[axis] = torch.linalg.solve(grams + ridge, (unfolded @ product).T).T
            if axis < 3:  # unit columns keep the equations well conditioned; the last factor has the scale
                factors[axis] = factors[axis] / factors[axis].norm(dim=0).clamp_min(1e-12)
        error = float((unfolded - factors[3] @ product.T).norm() / scale)
        if previous - error < 1e-6:
            break
        previous = error
    # The scale is distributed over the four factors; otherwise one layer would have large and three small weights.
    size = factors[3].norm(dim=0).clamp_min(1e-12)
    outside, inside, high, wide = (*factors[:3], factors[3] / size)
    even = size**0.25
    outside, inside, high, wide = outside * even, inside * even, high * even, wide * even
    return [
        inside.T[:, :, None, None],
        high.T[:, None, :, None],
        wide.T[:, None, None, :],
        outside[:, :, None, None],
    ]


def compose(way: str, factors: list[Tensor]) -> Tensor:
    """The kernel [O, C, h, w] that the thin layers compute together."""
    if way == "svd":
        return torch.einsum("rchw,or->ochw", factors[0], factors[1][:, :, 0, 0])
    if way == "spatial":
        return torch.einsum("rch,orw->ochw", factors[0][..., 0], factors[1][:, :, 0])
    if way == "tucker":
        return torch.einsum("rc,srhw,os->ochw", factors[0][:, :, 0, 0], factors[1], factors[2][:, :, 0, 0])
    inside, high, wide, outside = (factor.flatten(1) for factor in factors)
    return torch.einsum("rc,rh,rw,or->ochw", inside, high, wide, outside)


def spatial_matrix(weight: Tensor) -> Tensor:
    """[C h, O w]: the matrix that a spatial decomposition approximates."""
    return weight.double().permute(1, 2, 0, 3).flatten(2).flatten(0, 1)


def singular_values(way: str, weight: Tensor) -> list[Tensor]:
    """Singular values by which ranks are chosen, in descending order, one list for each rank of "svd", "spatial" or
    "tucker".
    """
    if way == "tucker":
        sides = (weight.transpose(0, 1), weight)
        grams = (side.double().flatten(1) @ side.double().flatten(1).T for side in sides)
        return [torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0) for gram in grams]
    return [torch.linalg.svdvals(spatial_matrix(weight) if way == "spatial" else weight.double().flatten(1))]


def min_rank(values: Tensor, share: float) -> int:
    """The smallest rank whose leading singular values hold `share` of the sum of their squares; at least 1."""
    squares = values.square()
    kept = squares.cumsum(0) / squares.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return min(int((kept < share).sum()) + 1, len(values))


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors, from the eigenvectors of the matrix times its transpose, which is smaller."""
    return torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)[:, :rank]


def _khatri_rao(factors: list[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor[None]).flatten(0, 1)
    return product
