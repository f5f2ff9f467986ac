"""What numbers mean, in sentences: the certificate, the end of a solve, and each metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otgan.certificate import Certificate
    from otgan.solvers import Result

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALL = 3.0  # standard errors within which a number is not told from 0

READING = {"near null is best": "near real data is best"}
"""Directions of metrics whose words need the table beside them."""

METRICS = {
    "sliced_w2": "Sliced Wasserstein distance to the held-out data",
    "energy": "Energy distance to the held-out data",
    "mmd2": "Squared maximum mean discrepancy (Gaussian kernel)",
    "c2st": "Accuracy of a classifier that tells samples from held-out data; 1/2 is a guess",
    "precision": "Share of samples inside the support of the real data",
    "recall": "Share of real data inside the support of the samples",
    "density": "Real neighbourhoods that a sample is in, over their expected number",
    "coverage": "Share of real data with a sample in their neighbourhood",
    "w2": "Wasserstein distance to the held-out data, by an exact plan",
    "frechet_distance": "Distance of the Gaussians of equal mean and covariance, squared",
    "data_copying": "C_T: below -3 samples are nearer to the training data than chance allows, above 3 farther",
    "authenticity": "Share of samples farther from the nearest training point than that is from the next",
    "nearest_distance": "Median distance to the nearest training point",
    "nearest_ratio": "Median of the distances to the nearest over the second nearest training point",
    "train_share": "Share of samples nearer to the training than to the held-out data",
    "copies": "Share of samples that are training points",
    "class_kl": "Divergence of the samples' classes from the real ones, in nats",
    "confidence": "Mean probability of the class that the classifier chooses",
}


def describe_metric(name: str) -> str:
    """A metric in words; its own name where there are none."""
    inner = name.removeprefix("pixel_")
    known = METRICS.get(inner, "")
    return f"{known}, in pixels" if known and inner != name else known


def number(value: float, digits: int = 3) -> str:
    """A number for readers: a few digits, thousands separated, no exponent where none is needed."""
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == 0.0:
        return "0"
    size = abs(value)
    if 1e-3 <= size < 1e7:
        places = max(digits - 1 - math.floor(math.log10(size)), 0)
        text = f"{value:,.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{number(100 * share)} %"


def seconds(value: float) -> str:
    """A duration."""
    if value < 120:
        return f"{number(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def chi2(certificate: Certificate) -> str:
    """Chi2, with its standard error where it was sampled."""
    if certificate.exact:
        return number(certificate.chi2)
    # As many places as two digits of the error have.
    error = certificate.chi2_stderr
    places = 4 if error <= 0.0 else min(max(1 - math.floor(math.log10(error)), 0), 8)
    return f"{certificate.chi2:.{places}f} ± {error:.{places}f}"


def interval(certificate: Certificate) -> tuple[str, str]:
    """Name and ends of the certified interval: of W2, or of W_p for another cost."""
    if certificate.p == 2.0:
        name, ends = "W2", (certificate.w2_lower, certificate.w2_upper)
    else:
        p = certificate.p
        name = f"W{p:g}"
        ends = (p * certificate.cost_lower) ** (1 / p), (p * certificate.cost_upper) ** (1 / p)
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high)):
        return name, f"{number(low)} to {number(high)}"
    # Digits that tell the ends apart, two of their gap.
    gap = high - low
    if gap <= 1e-7 * high:
        return name, f"{low:,.6g}"
    places = 4 if gap <= 0 else min(max(1 - math.floor(math.log10(gap)), 0), 8)
    return name, f"{low:,.{places}f} to {high:,.{places}f}"


def certified(result: Result) -> list[str]:
    """What the certificate says, sentence by sentence."""
    c = result.certificate
    n = c.n_targets
    if c.exact:
        how = "The measures of the cells are exact integrals, without sampling."
    else:
        fresh = f"{c.n_samples:,} samples of the source that the solver never saw"
        how = f"The measures of the cells were counted on {fresh}."
    said = [how, _chi2_words(result), _empty_words(c, n)]
    name, ends = interval(c)
    what = "between the source and the data"
    low = c.w2_lower if c.p == 2.0 else c.cost_lower
    high = c.w2_upper if c.p == 2.0 else c.cost_upper
    apart = 0.0 < low < high < math.inf and high / low - 1 > 1e-7
    power = 1.0 if c.p == 2.0 else 1.0 / c.p  # of a cost, which is the p-th power of a distance
    width = f" The ends are {percent((high / low) ** power - 1)} apart." if apart else ""
    sure = "both hold without sampling error" if c.exact else "each end is three standard errors out"
    place = "lies in the interval" if " to " in ends else "is"
    said.append(
        f"The distance {name} {what} {place} {ends}: the lower end follows from weak duality, the upper end from an "
        f"explicit coupling, and {sure}.{width}"
    )
    return said


def _chi2_words(result: Result) -> str:
    c = result.certificate
    said = (
        f"Their relative error is chi2 = Σ (w − b)² / b = {chi2(c)}: 0 if every data point received exactly its "
        f"weight; {percent(c.l1 / 2)} of the mass is misplaced"
    )
    said += "." if c.exact else ", the noise of counting included."
    if not c.exact and abs(c.chi2) <= _SMALL * c.chi2_stderr:
        said += " That is not told from 0 by so many samples."
    if result.n_samples > 0 and not c.exact:
        limit = (c.n_targets - 1) / result.n_samples
        said += (
            f" No method that saw the {result.n_samples:,} samples that this one saw can expect much less than "
            f"(n - 1) / N = {number(limit)}."
        )
    return said


def _empty_words(c: Certificate, n: int) -> str:
    if c.empty_cells == 0:
        seen = "has a cell of positive measure" if c.exact else "was reached by some sample"
        return f"Every one of the {n:,} data points {seen}: the transport map drops none."
    few = "" if c.exact or c.n_samples >= 20 * n else " With few samples a point some are missed by chance."
    missed = "have cells of measure 0" if c.exact else "were reached by no sample"
    return (
        f"{c.empty_cells:,} of {n:,} data points ({percent(c.empty_cells / n)}) {missed}: the "
        f"transport map drops them, which is what mode collapse is here.{few}"
    )


NOT_CERTIFIED = (
    "The certificate is about the transport from the source to these data points. It does not say that points between "
    "them, which a generator draws, are right, nor that the data stand for the law that they come from: held-out data "
    "answer that, see the metrics."
)
