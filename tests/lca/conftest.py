"""The slow, obvious reference: sparse coding by explicit matrices and loops, in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.marks import quick
from torch import Tensor

from sixfold.lca.geometry import Geometry

Floats = NDArray[np.float64]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit_atoms(geometry: Geometry, seed: int = 1, *leading: int, dtype: torch.dtype) -> Tensor:
    """A random dictionary of unit-norm atoms."""
    shape = (*leading, geometry.atoms, *geometry.atom_shape)
    atoms = draw(*shape, seed=seed)
    made: Tensor = (atoms / atoms.flatten(-3).norm(dim=-1)[..., None, None, None]).to(dtype)
    return made


def matrix(geometry: Geometry, atoms: Callable[[int], Floats]) -> tuple[Floats, Floats]:
    """D as a matrix, one column a code entry, one row a pixel of the canvas, by loops.

    Args:
        geometry: the sizes.
        atoms: gives the (K, C, R, S) dictionary of a position.

    Returns:
        D (pixels, K P Q), with rows that do not count set to zero, and a selection matrix that
        turns an image (C H W) into pixels.
    """
    (c, h, w), (ph, pw) = geometry.image, geometry.padding
    (p, q), (r, s), (sh, sw) = geometry.positions, geometry.kernel, geometry.stride
    ch, cw = h + 2 * ph, w + 2 * pw
    rows = np.arange(c * ch * cw).reshape(c, ch, cw)
    d = np.zeros((rows.size, geometry.codes))
    for k in range(geometry.atoms):
        for i in range(p):
            for j in range(q):
                column = (k * p + i) * q + j
                at = rows[:, i * sh : i * sh + r, j * sw : j * sw + s]
                d[at.ravel(), column] = atoms(i * q + j)[k].ravel()
    select = np.zeros((rows.size, c * h * w))
    inside = rows[:, ph : ph + h, pw : pw + w]
    select[inside.ravel(), np.arange(c * h * w)] = 1
    reach = np.zeros((c, h, w), bool)
    reach[:, : geometry.reach[0], : geometry.reach[1]] = True
    select[:, ~reach.ravel()] = 0
    if geometry.boundary == "free":
        d[select.sum(1) == 0] = 0
    return d, select


def reference_lca(
    d: Floats, x: Floats, *, level: float, eta: float, steps: int, kind: str, nonnegative: bool
) -> Floats:
    """The textbook's update, a number at a time where it branches."""
    gram = d.T @ d - np.eye(d.shape[1])
    drive = d.T @ x
    u = np.zeros(d.shape[1])
    for _ in range(steps):
        a = np.array([shrink(value, level, kind, nonnegative) for value in u])
        u = u + eta * (drive - u - gram @ a)
    return np.array([shrink(value, level, kind, nonnegative) for value in u])


def shrink(u: float, level: float, kind: str, nonnegative: bool) -> float:
    if nonnegative and u <= level:
        return 0.0
    if abs(u) <= level:
        return 0.0
    return u if kind == "hard" else u - math.copysign(level, u)


def fista(d: Floats, x: Floats, *, level: float, steps: int) -> Floats:
    """Beck and Teboulle 2009, plainly."""
    size = np.linalg.norm(d, 2) ** 2
    a = z = np.zeros(d.shape[1])
    t = 1.0
    for _ in range(steps):
        v = z + d.T @ (x - d @ z) / size
        following = np.sign(v) * np.maximum(np.abs(v) - level / size, 0)
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        z = following + (t - 1) / t_next * (following - a)
        a, t = following, t_next
    return a


def objective(d: Floats, x: Floats, a: Floats, level: float) -> float:
    return float(0.5 * ((x - d @ a) ** 2).sum() + level * np.abs(a).sum())


GEOMETRIES: dict[str, Geometry] = {
    "stride 2, padded": Geometry(
        channels=3, height=12, width=10, atoms=6, kernel=(5, 4), stride=(2, 2), padding=(2, 1)
    ),
    "stride 2, padded with zeros": Geometry(
        channels=2,
        height=9,
        width=11,
        atoms=5,
        kernel=(4, 3),
        stride=(2, 1),
        padding=(3, 1),
        boundary="zero",
    ),
    "no padding": Geometry(channels=1, height=11, width=12, atoms=7, kernel=(4, 5), stride=(3, 2)),
    "large stride": Geometry(
        channels=2, height=13, width=9, atoms=4, kernel=(3, 2), stride=(4, 3), padding=(1, 1)
    ),
    "one-dimensional": Geometry(
        channels=2, height=1, width=40, atoms=6, kernel=(1, 8), stride=(1, 3), padding=(0, 5)
    ),
    "fully connected": Geometry(channels=2, height=5, width=6, atoms=40, kernel=(5, 6)),
    "fully connected, few atoms": Geometry(channels=1, height=5, width=6, atoms=9, kernel=(5, 6)),
    "one atom, stride 1": Geometry(
        channels=1, height=8, width=8, atoms=3, kernel=(3, 3), padding=(1, 1)
    ),
}


@pytest.fixture(
    params=quick(GEOMETRIES, "stride 2, padded with zeros", "one-dimensional", "one atom, stride 1")
)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    """Sizes of all kinds."""
    return GEOMETRIES[request.param]
