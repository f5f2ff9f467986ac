"""Stacked images: a thousand modes whose number is known, from ten classes of grey images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgan._checks import as_count, as_weights
from otgan.metrics.images._pixels import as_pixels
from otgan.metrics.modes import reverse_kl

if TYPE_CHECKING:
    from otgan._checks import ArrayLike
    from otgan.metrics.images.classifier import ImageClassifier

N_STACKED = 128_000
"""Training images of the protocol."""
N_SAMPLES = 26_000
"""Generated images of the protocol."""
_CHANNELS = 3
_TAIL = 12.0  # standard deviations of a count that its expectation sums over


class Stacked(NamedTuple):
    """Stacked images, bytes (n, 3, h, w), and the numbers of the grey images that are their channels, (n, 3)."""

    pixels: Tensor
    numbers: Tensor


def stack(images: Any, n: int = N_STACKED, seed: int = 0) -> Stacked:
    """Colour images whose three channels are grey images, drawn independently and uniformly with replacement.

    Args:
        images: grey, bytes or floats in [0, 1], shape (k, 1, h, w) or (k, h, w).
        n: how many; 128,000 of MNIST's training images in the protocol.
        seed: of the draw.

    Returns:
        Bytes, shape (n, 3, h, w), and the numbers of the images, shape (n, 3): ``labels[numbers]`` are their classes.

    Source:
        Metz, Poole, Pfau, Sohl-Dickstein, "Unrolled generative adversarial networks" (ICLR 2017); with these numbers
        Srivastava et al., "VEEGAN" (NeurIPS 2017), and Lin et al., "PacGAN" (NeurIPS 2018).

    Example:
        >>> stack(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), 5).pixels.shape
        torch.Size([5, 3, 28, 28])
    """
    pixels = as_pixels(images, "images")
    if pixels.shape[1] != 1:
        raise ValueError(f"images must be grey, shape (k, 1, h, w), got {tuple(pixels.shape)}.")
    stream = torch.Generator().manual_seed(as_count(seed, "seed"))
    numbers = torch.randint(len(pixels), (as_count(n, "n", 1), _CHANNELS), generator=stream)
    return Stacked(pixels[numbers.to(pixels.device), 0], numbers)


@dataclass(frozen=True)
class StackedModes:
    """What :func:`count_stacked_modes` found, each number with its value for as many samples of the true law.

    Attributes:
        n_samples: m.
        n_modes: K^3.
        captured: modes that at least one sample belongs to.
        captured_null: expected number for the true law.
        kl: ``KL(q || uniform)`` of the samples' modes, in nats, not corrected: the protocol's number.
        kl_null: its mean for m samples of the true law, which is not 0.
        kl_null_std: and its standard deviation.
        kl_data: ``KL(q || b)``, b the true law's own weights, which are uniform only about.
        kl_data_null: its mean for m samples of the true law.
        histogram: share of the samples in each mode ``(a K + b) K + c`` for classes a, b, c.
    """

    n_samples: int
    n_modes: int
    captured: int
    captured_null: float
    kl: float
    kl_null: float
    kl_null_std: float
    kl_data: float
    kl_data_null: float
    histogram: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and a list, for JSON."""
        return {**vars(self), "histogram": list(self.histogram)}

    def table(self) -> str:
        """The counts as a few lines of text, null values beside them."""
        rows = [
            ("", f"{self.n_samples:,} samples", "true law"),
            ("modes captured", f"{self.captured} of {self.n_modes}", f"{self.captured_null:.4g}"),
            ("KL to uniform", f"{self.kl:.4g}", f"{self.kl_null:.3g} +- {self.kl_null_std:.1g}"),
            ("KL to the data's modes", f"{self.kl_data:.4g}", f"{self.kl_data_null:.3g}"),
        ]
        return "\n".join(f"{name:<22}  {value:>16}  {null:>18}".rstrip() for name, value, null in rows)


def count_stacked_modes(
    samples: Any, classifier: ImageClassifier, *, class_weights: ArrayLike | None = None
) -> StackedModes:
    """Modes and KL of stacked images, each channel classified on its own.

    A sample's mode is the triple of its channels' classes. The classifier errs: with a share e of wrong channels, about
    3 e of a generator's samples are counted in a neighbouring mode, so that one that drops few modes may seem to drop
    none (as in the published numbers, whose classifiers err too).

    A perfect sampler has ``KL(q || uniform) > 0``, since m samples scatter: about ``(K^3 - 1) / (2 m)``, 0.019 for
    26,000 samples of 1,000 equal modes, and more where the data's classes are not equal (MNIST's are not: 0.024). The
    expectation here is exact for binomial counts, for few samples too.

    Args:
        samples: bytes or floats in [0, 1], shape (m, 3, h, w).
        classifier: of grey images, shape (1, h, w).
        class_weights: shares of the classes in the images that were stacked, shape (K,); equal when left out.

    Raises:
        ValueError: for shapes that do not fit.
    """
    if classifier.shape[0] != 1:
        raise ValueError(f"classifier must be one of grey images, (1, h, w), got {classifier.shape}.")
    pixels = as_pixels(samples, "samples", (_CHANNELS, *classifier.shape[1:]))
    classes = classifier.classify(pixels.flatten(0, 1)[:, None]).view(len(pixels), _CHANNELS)
    return count_triples(classes, classifier.n_classes, class_weights=class_weights)


def count_triples(classes: ArrayLike, n_classes: int, *, class_weights: ArrayLike | None = None) -> StackedModes:
    """:func:`count_stacked_modes` of classes that are known, whole numbers of shape (m, 3)."""
    triples = torch.as_tensor(classes).cpu()
    if triples.ndim != 2 or triples.shape[1] != _CHANNELS or not len(triples) or triples.is_floating_point():
        raise ValueError(f"classes must be whole numbers of shape (m, 3), got {triples.dtype} {tuple(triples.shape)}.")
    k = as_count(n_classes, "n_classes", 2)
    if int(triples.min()) < 0 or int(triples.max()) >= k:
        raise ValueError(f"classes must be 0 to {k - 1}, got {int(triples.min())} to {int(triples.max())}.")
    mode = ((triples[:, 0] * k + triples[:, 1]) * k + triples[:, 2]).long()
    b = as_weights(class_weights, k, "class_weights").numpy()
    weights = np.einsum("i,j,k->ijk", b, b, b).reshape(-1)
    counts, m = torch.bincount(mode, minlength=k**_CHANNELS).double(), len(triples)
    mean, std = plug_in_kl(weights, np.full(len(weights), 1.0 / len(weights)), m)
    return StackedModes(
        n_samples=m,
        n_modes=len(weights),
        captured=int((counts > 0).sum()),
        captured_null=float((1.0 - (1.0 - weights) ** m).sum()),
        kl=reverse_kl(counts),
        kl_null=mean,
        kl_null_std=std,
        kl_data=reverse_kl(counts, weights),
        kl_data_null=plug_in_kl(weights, weights, m)[0],
        histogram=tuple((counts / m).tolist()),
    )


def plug_in_kl(weights: NDArray[np.float64], reference: NDArray[np.float64], m: int) -> tuple[float, float]:
    """Mean and standard deviation of ``KL(q || reference)``, q the histogram of m samples of ``weights``.

    ``KL = sum_i g_i(c_i)`` with ``g_i(c) = c/m log(c / (m r_i))`` and binomial counts: the mean is a sum of theirs,
    exactly. For the deviation counts are Poisson with their sum held fixed, which takes from the sum of variances
    ``(sum_i cov(g_i, c_i))^2 / m``.
    """
    pairs, number = np.unique(np.stack([weights, reference]), axis=1, return_counts=True)
    mean = variance = covariance = 0.0
    for (b, r), times in zip(pairs.T, number, strict=True):
        c, p = _binomial(m, float(b))
        g = np.where(c > 0, c / m * np.log(np.maximum(c, 1) / (m * r)), 0.0)
        expected = float(p @ g)
        mean += times * expected
        variance += times * float(p @ (g - expected) ** 2)
        covariance += times * float(p @ ((g - expected) * (c - m * b)))
    return mean, max(variance - covariance**2 / m, 0.0) ** 0.5


def _binomial(m: int, b: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The counts that have any probability, and their probabilities."""
    from scipy.stats import binom

    spread = _TAIL * (m * b) ** 0.5 + _TAIL**2
    c = np.arange(max(int(m * b - spread), 0), min(int(m * b + spread), m) + 1)
    return c.astype(np.float64), binom.pmf(c, m, b)
