"""Linear systems with the Hessian of the energy: a symmetric positive semi-definite graph Laplacian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.linalg import splu

from otgan.solvers._multigrid import Multigrid, residual

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]

#: Largest system solved directly, by the number of entries per row: fill-in grows with the dimension.
DIRECT_CHAIN = 10_000_000
DIRECT_PLANAR = 12_000
DIRECT_SPATIAL = 3_000
MAX_CG = 200
#: A residual that is accepted although more was asked for: Newton's method then needs a step more.
CG_FLOOR = 1e-3


def solve_laplacian(laplacian: csr_array, rhs: Floats, rtol: float = 1e-10) -> Floats:
    """Solution of ``L x = rhs`` with mean 0, for ``L`` with zero row sums and a connected graph.

    Small systems, and those of a chain, are factorised after pinning one unknown; the residual is then at rounding
    level whatever ``rtol``. Large ones are solved by conjugate gradients, preconditioned by one V-cycle of smoothed
    aggregation (Vanek, Mandel, Brezina, Computing 1996).

    Args:
        laplacian: shape (n, n), symmetric, rows summing to 0, positive diagonal.
        rhs: shape (n,); its mean is removed, since the range of ``L`` is orthogonal to constants.
        rtol: bound on ``|L x - rhs| / |rhs|`` of the iterative solve.

    Raises:
        RuntimeError: if the graph is not connected, so that ``L`` has no unique solution up to a constant, or the
            iteration does not converge.
    """
    n = len(rhs)
    if n == 1:
        return np.zeros(1)
    b = rhs - rhs.mean()
    if not b.any():
        return np.zeros(n)
    x = _direct(laplacian, b) if n <= _direct_limit(laplacian.nnz / n) else _multigrid(laplacian, b, rtol)
    if not np.isfinite(x).all():
        msg = "the Hessian is singular beyond the gauge: some cells share no edge that carries mass with the others"
        raise RuntimeError(msg)
    return x - x.mean()


def _direct_limit(per_row: float) -> int:
    """Largest number of unknowns worth a factorisation, from the mean number of entries per row."""
    if per_row <= 3.01:
        return DIRECT_CHAIN
    return DIRECT_PLANAR if per_row <= 8.0 else DIRECT_SPATIAL


def _direct(laplacian: csr_array, b: Floats) -> Floats:
    """LU with symmetric pivoting of the system without its stiffest unknown, which is set to 0."""
    diagonal = laplacian.diagonal()
    if diagonal.min() <= 0.0:
        zero = int((diagonal <= 0.0).sum())
        msg = f"the Hessian has {zero} zero rows: those cells touch no other cell where there is mass"
        raise RuntimeError(msg)
    keep = np.delete(np.arange(len(b)), int(np.argmax(diagonal)))
    scale = 1.0 / np.sqrt(diagonal[keep])
    reduced = laplacian[keep][:, keep].tocoo()
    reduced.data = reduced.data * scale[reduced.row] * scale[reduced.col]
    try:
        factor = splu(
            reduced.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:
        msg = "the Hessian is singular beyond the gauge: some cells share no edge that carries mass with the others"
        raise RuntimeError(msg) from error
    x = np.zeros(len(b))
    x[keep] = scale * factor.solve(scale * b[keep])
    return x


def _multigrid(laplacian: csr_array, b: Floats, rtol: float) -> Floats:
    """Conjugate gradients with an algebraic multigrid preconditioner.

    Constants are projected out of every search direction, so nothing need be pinned. Inner products avoid the BLAS,
    whose threads gain nothing on vectors.
    """
    precondition = Multigrid(laplacian)
    rows = (laplacian.indptr, laplacian.indices, laplacian.data)
    x, r = np.zeros_like(b), b.copy()
    zero, ap = np.zeros_like(b), np.empty_like(b)
    z = precondition(r)
    z -= z.mean()
    p, rz = z.copy(), _dot(r, z)
    bound = rtol * np.sqrt(_dot(b, b))
    for _ in range(MAX_CG):
        residual(*rows, zero, p, ap)
        alpha = -rz / _dot(p, ap)
        x += alpha * p
        r += alpha * ap
        r -= r.mean()
        if not _dot(r, r) > bound**2:
            break
        z = precondition(r)
        z -= z.mean()
        rz, old = _dot(r, z), rz
        p *= rz / old
        p += z
    left = float(np.sqrt(_dot(r, r) / _dot(b, b)))
    if not left <= max(rtol, CG_FLOOR):
        msg = f"conjugate gradients stopped at a relative residual of {left:.1e}, {rtol:.1e} was asked for"
        raise RuntimeError(msg)
    return x


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("i,i->", a, b))
