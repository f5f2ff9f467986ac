"""Input checks shared by every public entry: arrays in, finite tensors of a known shape out, or a sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    ArrayLike = Tensor | NDArray[Any] | Sequence[Any] | float

_FLOATS = (torch.float32, torch.float64)
LARGEST, SMALLEST = 1e70, 1e-70  # lengths between these have squares of squares that neither overflow nor vanish
_LEAST_WEIGHT = 1e-100


def as_tensor(value: ArrayLike, name: str) -> Tensor:
    """Turn numbers, lists, arrays or tensors into a float32 or float64 tensor; integers become float64."""
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise ValueError(f"{name} is a masked array with hidden entries; drop those rows and pass a plain array.")
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} is ragged: every row must have the same length ({error}).") from None
        if array.dtype == object or array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} must hold real numbers, got an array of dtype {array.dtype} ({type(value).__name__})."
            )
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if array.dtype.kind in "biu":
            array = array.astype(np.float64)
        # A tensor cannot carry negative strides and warns on a read-only array: copy only in those cases.
        tensor = torch.from_numpy(
            array if array.flags.writeable and min(array.strides, default=1) >= 0 else array.copy()
        )
    if tensor.is_sparse or tensor.layout != torch.strided:
        raise TypeError(f"{name} is a sparse tensor; pass a dense one ({name}.to_dense()).")
    if tensor.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {tensor.dtype}.")
    if not tensor.is_floating_point():
        return tensor.to(torch.float64)
    if tensor.dtype not in _FLOATS:
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; otgan computes in float32 or float64: convert it to one of them."
        )
    return tensor


def require_finite(tensor: Tensor, name: str) -> None:
    """Raise if ``tensor`` has a NaN or an infinity, naming how many there are and where the first one is."""
    if tensor.numel() == 0 or all(math.isfinite(end) for end in _range(tensor)):
        return  # NaN passes through both ends
    bad = ~torch.isfinite(tensor)
    count = int(bad.sum())
    if count:
        first = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{name} has {count} value(s) that are NaN or infinite, the first at {list(first)}; "
            "remove or repair those rows."
        )


def _range(values: Tensor) -> tuple[float, float]:
    """Least and largest entry, without a copy of the values."""
    low, high = torch.aminmax(values)
    return float(low), float(high)


def as_points(value: ArrayLike, name: str, dim: int | None = None, allow_empty: bool = False) -> Tensor:
    """Check a point cloud: a finite float tensor of shape (n, d).

    Args:
        value: numbers of shape (n, d).
        name: what the caller calls it, for the error.
        dim: the dimension d that is expected, if any.
        allow_empty: whether n = 0 is accepted.
    """
    points = as_tensor(value, name)
    if points.ndim == 1:
        raise ValueError(
            f"{name} must have shape (n, d), got ({points.shape[0]},). For n points on a line pass {name}[:, None]; "
            f"for one point in d dimensions pass {name}[None, :]."
        )
    if points.ndim != 2:
        raise ValueError(f"{name} must have shape (n, d), got {tuple(points.shape)}; flatten each point to one row.")
    if points.shape[1] == 0 or (points.shape[0] == 0 and not allow_empty):
        raise ValueError(
            f"{name} is empty: shape {tuple(points.shape)}, expected at least one point and one dimension."
        )
    if dim is not None and points.shape[1] != dim:
        raise ValueError(f"{name} has dimension {points.shape[1]}, expected {dim} (shape (n, {dim})).")
    require_finite(points, name)
    require_scale(points, name)
    return points


def require_scale(values: Tensor, name: str) -> None:
    """Raise if numbers are too large, or differ from each other by too little, for their squares to be represented."""
    if values.numel() == 0:
        return
    low, high = _range(values)
    if max(-low, high) > LARGEST:
        raise ValueError(f"{name} holds numbers beyond {LARGEST:g}, whose squares overflow; rescale the data.")
    extent = float((values.amax(dim=0) - values.amin(dim=0)).max()) if values.ndim == 2 else max(-low, high)
    if 0.0 < extent < SMALLEST:
        raise ValueError(f"{name} extends over less than {SMALLEST:g}, whose square vanishes; rescale the data.")


def as_weights(value: ArrayLike | None, n: int, name: str = "weights") -> Tensor:
    """Check and normalise weights: float64, shape (n,), all > 0, sum 1; ``None`` means uniform."""
    if value is None:
        return torch.full((n,), 1.0 / n, dtype=torch.float64)
    weights = as_tensor(value, name).to(device="cpu", dtype=torch.float64)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one number a point, got {tuple(weights.shape)}.")
    require_finite(weights, name)
    bad = (weights <= 0).nonzero()
    if bad.numel():
        i = int(bad[0])
        raise ValueError(
            f"{name} must be > 0: {bad.shape[0]} of {n} are not, the first is {name}[{i}] = {float(weights[i])!r}. "
            "Drop the points that carry no mass."
        )
    if abs(float(weights.sum()) - 1.0) <= 1e-13:
        return weights.clone()  # normalised already: keep every bit
    weights = weights / weights.max()
    weights = weights / weights.sum()
    if float(weights.min()) < _LEAST_WEIGHT:
        raise ValueError(
            f"{name} span more than 100 orders of magnitude; drop the smallest: they cannot be told from 0."
        )
    return weights


def as_count(value: int, name: str, minimum: int = 0) -> int:
    """Check an integer argument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")
    return int(value)


def as_positive(value: float, name: str) -> float:
    """Check a finite number > 0."""
    number = _as_number(value, name, "> 0")
    if not (0.0 < number < float("inf")):
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}.")
    return number


def as_fraction(value: float, name: str) -> float:
    """Check a number in [0, 1)."""
    number = _as_number(value, name, "in [0, 1)")
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}.")
    return number


def _as_number(value: Any, name: str, which: str) -> float:
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number {which}, got {value!r}.") from None


def as_exponent(value: float, name: str = "p") -> float:
    """Check the exponent of a cost ``|x - y|^p / p``: a finite number > 1."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number > 1, got {value!r}.")
    number = float(value)
    if not 1.0 < number < float("inf"):
        raise ValueError(
            f"{name} must be a finite number > 1, got {value!r}: for {name} = 1 the cost |x - y|^p / p is not strictly "
            "convex, so that no potential determines a map, and below 1 it is not convex."
        )
    return number


def as_length(value: float, name: str) -> float:
    """Check a length > 0 whose square neither overflows nor vanishes."""
    number = as_positive(value, name)
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(f"{name} must be between {SMALLEST:g} and {LARGEST:g}, got {number:g}; rescale the data.")
    return number


def as_device(value: torch.device | str | int | None, default: torch.device | str) -> torch.device:
    """The device a caller named, if torch knows it and has it; the default for None."""
    if value is None:
        return torch.device(default)
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"device must be one of torch, such as 'cpu' or 'cuda', got {value!r}.") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(
            f"device is {str(device)!r}, but torch sees {torch.cuda.device_count()} GPU(s) here (`otgan doctor` tells "
            "more); leave it out or pass 'cpu'."
        )
    return device


def make_generator(
    seed: int | None = None, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> torch.Generator:
    """One random stream from a seed or from the caller's own generator; the global state is never touched."""
    if seed is not None and generator is not None:
        raise ValueError("Pass either seed or generator, not both.")
    if generator is not None:
        return generator
    made = torch.Generator(device=device if device is not None else "cpu")
    if seed is None:
        made.seed()
    else:
        made.manual_seed(as_count(seed, "seed") & 0x7FFF_FFFF_FFFF_FFFF)
    return made
