"""The certificate: masses and Wasserstein distance of a result, with their errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Certificate:
    """How far the potential's masses are from the target's, and what that says of the Wasserstein distance.

    The cost is ``c(x - y) = |x - y|^p / p``; C(mu, nu), the least mean cost of a coupling, is ``W_p^p / p``.

    Attributes:
        chi2: ``sum_i (w_i - b_i)^2 / b_i``, an unbiased estimate (it can fall below 0) or exact.
        chi2_stderr: its standard error; 0 where exact.
        l1: ``sum_i |w_i - b_i|``, with the sampling noise of the w_i in it.
        max_ratio: ``max_i |w_i / b_i - 1|``, likewise.
        empty_cells: targets that no sample reached.
        w2_lower: lower end of an interval for W2(mu, nu); NaN for p != 2, where nothing is said of it.
        w2_upper: upper end. Sampled ends are three standard errors out.
        n_samples: fresh samples used; 0 where exact.
        n_targets: n.
        exact: whether masses are integrals (True) or sampled.
        dual: ``D(h)``, the Kantorovich dual value, at most ``C(mu, nu)`` (which is W2^2/2 for p = 2).
        transport_cost: ``E |x - T(x)|^p``, the p-th power of the distance to what the map does reach.
        target_gap: an upper bound of W_p between what the map reaches and the target.
        p: exponent of the cost.
        cost_lower: lower end of an interval for C(mu, nu); for p = 2 it is ``w2_lower^2 / 2``.
        cost_upper: upper end, likewise.
    """

    chi2: float
    chi2_stderr: float
    l1: float
    max_ratio: float
    empty_cells: int
    w2_lower: float
    w2_upper: float
    n_samples: int
    n_targets: int
    exact: bool
    dual: float
    transport_cost: float
    target_gap: float
    p: float = 2.0
    cost_lower: float = math.nan
    cost_upper: float = math.nan

    def __post_init__(self) -> None:
        """For p = 2 the two intervals say the same."""
        if self.p == 2.0:
            object.__setattr__(self, "cost_lower", self.w2_lower**2 / 2)
            object.__setattr__(self, "cost_upper", self.w2_upper**2 / 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The certificate as a few lines of text."""
        how = "exact integrals" if self.exact else f"{self.n_samples:,} fresh samples"
        chi2 = f"{self.chi2:.3g}" if self.exact else f"{self.chi2:.4f} +- {self.chi2_stderr:.4f}"
        rows = [
            ("measured on", how),
            ("chi2 of the cell masses", chi2),
            ("mass misplaced (L1 / 2)", f"{50 * self.l1:.3g} %"),
            ("worst cell |w/b - 1|", f"{self.max_ratio:.3g}"),
            ("empty cells", f"{self.empty_cells:,} of {self.n_targets:,}"),
            ("W2(source, target)", f"between {self.w2_lower:.6g} and {self.w2_upper:.6g}"),
        ]
        if self.p != 2.0:
            ends = self.cost_lower, self.cost_upper
            low, high = ((self.p * end) ** (1.0 / self.p) for end in ends)
            rows[-1] = (f"W_p(source, target), p = {self.p:g}", f"between {low:.6g} and {high:.6g}")
            rows.append(("mean cost |x-y|^p / p", f"between {ends[0]:.6g} and {ends[1]:.6g}"))
        if not self.exact:
            noise = self.n_targets / max(self.n_samples, 1)
            rows[2] = (rows[2][0], f"{rows[2][1]} (of which noise about {40 * noise**0.5:.2g} %)")
            if (missed := self.n_targets * math.exp(-1.0 / noise)) >= 0.5:
                rows[4] = (rows[4][0], f"{rows[4][1]} (of which chance at least {missed:,.0f})")
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
