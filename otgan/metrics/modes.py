"""Mode counting for mixtures whose modes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from otgan._checks import as_positive, as_tensor, as_weights, require_finite
from otgan.metrics._neighbours import nearest
from otgan.metrics._points import pair

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


@dataclass(frozen=True)
class Modes:
    """What :func:`count_modes` found, each number with its value for as many samples of the true mixture.

    Attributes:
        n_samples: m.
        n_modes: K.
        captured: modes that are the nearest one of at least one high-quality sample.
        captured_null: expected number for the mixture itself.
        high_quality: share of samples within ``radius`` deviations of their nearest mode.
        high_quality_null: ``P(chi_d <= radius)``, for isotropic Gaussian modes that do not overlap.
        reverse_kl: KL divergence of the histogram of nearest modes from the true weights, in nats.
        reverse_kl_null: its mean for the mixture itself, ``(K - 1) / (2 m)``.
        reverse_kl_null_std: and its standard deviation, ``(2 (K - 1))^(1/2) / (2 m)``.
        histogram: share of the samples nearest to each mode, K numbers.
    """

    n_samples: int
    n_modes: int
    captured: int
    captured_null: float
    high_quality: float
    high_quality_null: float
    reverse_kl: float
    reverse_kl_null: float
    reverse_kl_null_std: float
    histogram: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and a list, for JSON."""
        return {**vars(self), "histogram": list(self.histogram)}

    def table(self) -> str:
        """The counts as a few lines of text, null values beside them."""
        rows = [
            ("modes captured", f"{self.captured} of {self.n_modes}", f"{self.captured_null:.4g}"),
            ("high-quality samples", f"{100 * self.high_quality:.1f} %", f"{100 * self.high_quality_null:.1f} %"),
            (
                "reverse KL of the modes",
                f"{self.reverse_kl:.4g}",
                f"{self.reverse_kl_null:.3g} +- {self.reverse_kl_null_std:.2g}",
            ),
        ]
        head = [("", f"{self.n_samples:,} samples", "true mixture")]
        return "\n".join(f"{name:<23}  {value:>16}  {null:>20}".rstrip() for name, value, null in head + rows)


def count_modes(
    samples: ArrayLike,
    centres: ArrayLike,
    std: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    radius: float = 3.0,
) -> Modes:
    """Modes captured, share of high-quality samples and reverse KL, as VEEGAN and PacGAN report them.

    A sample belongs to its nearest centre, and is of high quality when it is within ``radius`` standard deviations of
    it. A mode is captured when a high-quality sample belongs to it. The reverse KL counts every sample.

    The three deviations are customary in the plane, where 98.9 % of a Gaussian are within them; in dimension d it is
    ``P(chi_d <= 3)``, 0.5 % at d = 25. Scale ``radius`` with the dimension there, and read the null value.

    Args:
        samples: (m, d).
        centres: (K, d).
        std: standard deviation of a coordinate within a mode, one number or shape (K,).
        weights: of the modes, shape (K,), normalised; uniform when left out.
        radius: in standard deviations.

    Raises:
        ValueError: for bad shapes, NaN, or deviations and weights that are not > 0.

    Source:
        Srivastava, Valkov, Russell, Gutmann, Sutton, "VEEGAN" (NeurIPS 2017); Lin, Khetan, Fanti, Oh, "PacGAN"
        (NeurIPS 2018).

    Example:
        >>> count_modes([[0.0], [0.1], [5.0]], centres=[[0.0], [4.0]], std=0.2).captured
        1
    """
    x, y = pair(samples, centres, ("samples", "centres"))
    n_modes, radius = len(y), as_positive(radius, "radius")
    deviations = as_tensor(std, "std").double().to(x.device)
    if deviations.ndim > 1 or deviations.numel() not in (1, n_modes):
        raise ValueError(f"std must be one number or have shape ({n_modes},), got {tuple(deviations.shape)}.")
    require_finite(deviations, "std")
    if float(deviations.min()) <= 0.0:
        raise ValueError(f"std must be > 0, got {float(deviations.min()):g}.")
    b = as_weights(weights, n_modes)
    index, distance = nearest(x, y, 1)
    mode = index[:, 0]
    good = distance[:, 0] <= radius * deviations.expand(n_modes)[mode]
    counts = torch.bincount(mode, minlength=n_modes).cpu().double()
    from scipy.stats import chi

    m, within = len(x), float(chi.cdf(radius, x.shape[1]))
    return Modes(
        n_samples=m,
        n_modes=n_modes,
        captured=int(len(torch.unique(mode[good]))),
        captured_null=float((1 - (1 - b * within) ** m).sum()),
        high_quality=float(good.double().mean()),
        high_quality_null=within,
        reverse_kl=_kl(counts.numpy(), b.numpy()),
        reverse_kl_null=(n_modes - 1) / (2 * m),
        reverse_kl_null_std=(2 * (n_modes - 1)) ** 0.5 / (2 * m),
        histogram=tuple((counts / m).tolist()),
    )


def reverse_kl(counts: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Plug-in ``KL(q || b) = sum_i q_i log(q_i / b_i)``, q the shares of the counts, in nats.

    "Reverse" because the generator's law comes first: it stays finite when modes are missing, at most
    ``max_i log(1 / b_i)``. For m samples of b itself it is not 0: ``2 m KL`` is then nearly chi-squared with K - 1
    degrees of freedom, so that its mean is ``(K - 1) / (2 m)`` (Wilks; K the modes), which is not subtracted.

    Args:
        counts: samples of each mode, shape (K,).
        weights: b, shape (K,), all > 0, normalised; uniform when left out.

    Example:
        >>> round(reverse_kl([10, 0]), 6)
        0.693147
    """
    c = as_tensor(counts, "counts").double().cpu()
    if c.ndim != 1 or len(c) == 0:
        raise ValueError(f"counts must have shape (K,), one number a mode, got {tuple(c.shape)}.")
    require_finite(c, "counts")
    if float(c.min()) < 0.0 or float(c.sum()) <= 0.0:
        raise ValueError("counts must be >= 0 and not all 0.")
    return _kl(c.numpy(), as_weights(weights, len(c)).numpy())


def _kl(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    q = counts / counts.sum()
    seen = q > 0
    return max(float((q[seen] * np.log(q[seen] / weights[seen])).sum()), 0.0)
