"""Checks of the arguments and the exact re-centring shared by all backends."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FAR = 4.0
"""A coordinate of the targets is re-centred when its centre is more than FAR half-ranges away from zero."""


class Problem(NamedTuple):
    """Scores ready for a backend: ``s_ij = <x_i, y_j> + h_j + <x_i, centre> + offset``.

    For p != 2 they are ``h_j - |x_i - y_j|^p / p + offset``.

    Attributes:
        x: samples, (m, d), detached.
        y: re-centred targets that can be chosen, (k, d).
        h: re-centred heights, (k,), all finite.
        centre: what was subtracted from each target, (d,), or None where that is zero.
        offset: what was subtracted from each height.
        kept: positions of the k targets among the n given ones, (k,) int64, or None when all n are kept.
        n: number of targets given.
        streamed: y is what was given, on the CPU, all n rows of it as they are: see ``streamed.stream``.
    """

    x: Tensor
    y: Tensor
    h: Tensor
    centre: Tensor | None
    offset: float
    kept: Tensor | None
    n: int
    streamed: bool = False

    def restore_index(self, index: Tensor) -> Tensor:
        """Positions among the kept targets -> positions among the given ones."""
        return index if self.kept is None else self.kept[index]

    def restore_value(self, value: Tensor) -> Tensor:
        """Add ``<x_i, centre> + offset``, in float64, to values of shape (m,) or (m, k)."""
        if self.centre is None and self.offset == 0.0:
            return value
        shift = torch.full((len(self.x),), self.offset, dtype=torch.float64, device=self.x.device)
        if self.centre is not None:
            centre = self.centre.double()
            for k in torch.nonzero(centre).flatten().tolist():
                shift += self.x[:, k].double() * centre[k]
        return (value.double() + shift.view(-1, *[1] * (value.dim() - 1))).to(value.dtype)

    def scatter(self, per_target: Tensor, fill: float) -> Tensor:
        """Values per kept target -> values per given target, ``fill`` at the others."""
        if self.kept is None:
            return per_target
        out = per_target.new_full((self.n,), fill)
        out[self.kept] = per_target
        return out


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite (one summation pass; a second only if the sum overflows)."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def check_eps(eps: float) -> float:
    """Return ``eps`` as a float; raise unless it is a positive finite number."""
    if isinstance(eps, Tensor) and eps.numel() != 1:
        raise ValueError(f"eps must be one number; got a tensor of shape {tuple(eps.shape)}.")
    try:
        value = float(eps)
    except (TypeError, ValueError):
        raise TypeError(f"eps must be a number; got {type(eps).__name__}.") from None
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"eps must be positive and finite; got {value}. For eps = 0 use assign.")
    return value


def check_p(p: float) -> float:
    """Return ``p`` as a float; raise unless the cost ``|z|^p / p`` is strictly convex."""
    if isinstance(p, (bool, str, bytes, Tensor)) or not hasattr(p, "__float__"):
        raise TypeError(f"p must be a number; got {p!r}.")
    value = float(p)
    if not (value > 1.0 and math.isfinite(value)):
        raise ValueError(
            f"p must be finite and > 1; got {value}. The cost |z|^p / p is not strictly convex for p <= 1."
        )
    return value


def check_k(k: int, n: int, available: int) -> int:
    """Return ``k``; raise unless it is an integer between 1 and the number of targets that can be chosen."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an int; got {type(k).__name__}.")
    if not 1 <= k <= available:
        dead = "" if available == n else f" ({n - available} of the {n} targets have h = -inf and are never chosen)"
        raise ValueError(f"k must be between 1 and {available}, the number of targets{dead}; got {k}.")
    return k


def _check_floating(name: str, value: object, dim: int, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor of shape {shape}; got {type(value).__name__}. Use torch.as_tensor({name})."
        )
    if value.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} is {value.dtype}: half precision cannot tell neighbouring scores apart. "
            f"Convert with {name}.float()."
        )
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64; got {value.dtype}. Convert with {name}.to(torch.float32).")
    if value.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must live on a CPU or CUDA device; got {value.device}. Move it with {name}.cpu().")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got layout {value.layout}. Use {name}.to_dense().")
    if value.dim() != dim:
        advice = f" Use {name}[:, None] for points on a line." if dim == 2 and value.dim() == 1 else ""
        raise ValueError(f"{name} must have shape {shape}; got {tuple(value.shape)}.{advice}")


def streams(x: Tensor, y: Tensor) -> bool:
    """Whether the targets stay in host memory, to visit the device of the samples block by block."""
    return x.device.type == "cuda" and y.device.type == "cpu"


def prepare(
    x: Tensor, y: Tensor, h: Tensor, eps: float | None = None, weights: Tensor | None = None, p: float = 2.0
) -> Problem:
    """Check the arguments of a kernel, drop targets that cannot be chosen, re-centre the rest.

    With ``weights`` the heights become ``h_j + eps log b_j``, so that a backend never sees weights.

    Re-centring. A rounding error in ``<x, y_j> + h_j`` is proportional to the size of the terms, while the choice
    depends on differences between targets only. Coordinate k of the targets, with range [lo, hi], is replaced by
    ``y_jk - c_k``, ``c_k = (lo + hi)/2``, if ``|c_k| > 4 (hi - lo)/2``, and left alone (c_k = 0) otherwise; the heights
    are treated in the same way, as the coordinate that multiplies 1. Under that condition the subtraction is exact in
    floating point (Sterbenz's lemma: c_k/2 <= y_jk <= 2 c_k), so nothing is lost; otherwise a few bits at most were to
    be gained. The rule looks at the targets alone: the answer for one sample never depends on the samples beside it.
    For p != 2 the points stay as they are: differences x_i - y_j lose nothing to a shift that both have in common.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d); on the CPU, with the samples on a GPU, they are left there as they are.
        h: heights, (n,), on the device of the samples or of the targets; -inf removes a target.
        eps: temperature that multiplies log-weights.
        weights: non-negative weights b, (n,); 0 removes a target.
        p: exponent of the cost.

    Raises:
        TypeError: for anything but dense float32 or float64 tensors of one dtype.
        ValueError: for shapes or devices that do not match, no target, NaN or infinite values (-inf in h excepted),
            negative weights, or no target left.
    """
    named: dict[str, Tensor] = {"x": x, "y": y, "h": h}
    if weights is not None:
        named["weights"] = weights
    for name, value in named.items():
        matrix = name in ("x", "y")
        _check_floating(name, value, 2 if matrix else 1, {"x": "(m, d)", "y": "(n, d)"}.get(name, "(n,)"))
        if value.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype} but {name} is {value.dtype}. Convert one: {name}.to({x.dtype}).")
        if value.device != x.device and not (streams(x, y) and value.device == y.device):
            raise ValueError(f"x is on {x.device} but {name} is on {value.device}. Move one: {name}.to('{x.device}').")
    n, d = y.shape
    if x.shape[1] != d:
        raise ValueError(f"x has dimension {x.shape[1]} but y has dimension {d}; samples and targets share one space.")
    if d == 0 or n == 0:
        raise ValueError(f"y must hold at least one target of dimension >= 1; got shape {tuple(y.shape)}.")
    for name in ("h", "weights"):
        if name in named and len(named[name]) != n:
            raise ValueError(f"{name} must hold one number per target, {n}; got {len(named[name])}.")
    x, y, h = x.detach(), y.detach(), h.detach().to(x.device)
    for name, value in (("x", x), ("y", y)):
        if not all_finite(value):
            raise ValueError(f"{name} holds NaN or infinite values; remove those rows.")
    if weights is not None:
        weights = weights.detach().to(x.device)
        if not all_finite(weights) or bool((weights < 0).any()):
            raise ValueError("weights must be finite and non-negative.")
        h = h + (eps if eps is not None else 1.0) * weights.double().log().to(h.dtype)
    kept = None
    if not all_finite(h):
        if bool((torch.isnan(h) | (h == math.inf)).any()):
            raise ValueError("h holds NaN or +inf; heights are finite, or -inf for a target that is never chosen.")
        kept = torch.nonzero(h > -math.inf).flatten()
        if len(kept) == 0:
            raise ValueError("every target has h = -inf (or weight 0), so none can be chosen; keep one finite height.")
        h = h[kept]
    if streams(x, y):
        low, high = _range_by_blocks(y, kept)
        centre = _far(low, high).to(x.device)
        offset = float(_far_centre(h))
        return Problem(x, y, h - offset, centre if bool((centre != 0).any()) else None, offset, kept, n, True)
    return _recentre(x, y if kept is None else y[kept], h, kept, n, p)


def _range_by_blocks(y: Tensor, kept: Tensor | None, rows: int = 2**16) -> tuple[Tensor, Tensor]:
    """Least and largest coordinates of the kept targets, without a copy of them all."""
    dead = torch.zeros(len(y), dtype=torch.bool)
    if kept is not None:
        dead = torch.ones_like(dead).index_fill_(0, kept.to(y.device), False)
    low, high = y.new_full((y.shape[1],), math.inf), y.new_full((y.shape[1],), -math.inf)
    for part, out in zip(y.split(rows), dead.split(rows), strict=True):
        chosen = part[~out] if kept is not None else part
        if len(chosen):
            least, most = torch.aminmax(chosen, dim=0)
            low, high = torch.minimum(low, least), torch.maximum(high, most)
    return low, high


def _far_centre(values: Tensor) -> Tensor:
    return _far(*torch.aminmax(values, dim=0))


def _far(low: Tensor, high: Tensor) -> Tensor:
    centre = low / 2 + high / 2
    return torch.where(centre.abs() > FAR * (high / 2 - low / 2), centre, torch.zeros_like(centre))


def _recentre(x: Tensor, y: Tensor, h: Tensor, kept: Tensor | None, n: int, p: float) -> Problem:
    centre: Tensor | None = _far_centre(y) if p == 2.0 else None
    offset = float(_far_centre(h))
    if centre is not None and bool((centre != 0).any()):
        y = y - centre
    else:
        centre = None
    if offset != 0.0:
        h = h - offset
    return Problem(x, y, h, centre, offset, kept, n)
