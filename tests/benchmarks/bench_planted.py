"""Planted potentials recovered by each sampling solver: ``python tests/benchmarks/bench_planted.py [METHOD ...]``.

200 targets with random heights; their masses, counted on 8 million samples, are the weights. Errors on a million fresh
samples, whose own noise is given beside them.
"""

from __future__ import annotations

import sys

import torch

import otgan as og
from otgan import kernels


def planted(source: og.Source, n: int, samples: int) -> og.DiscreteMeasure:
    """Targets with the masses that some random heights give them, those without mass left out."""
    stream = torch.Generator().manual_seed(0)
    y = torch.randn(n, source.dim, generator=stream, dtype=torch.float64)
    h = -0.1 * (y**2).sum(1) + 0.1 * torch.randn(n, generator=stream, dtype=torch.float64)
    h += kernels.slack(source.sample(20_000, seed=1, dtype=torch.float64), y, h)
    counts = torch.bincount(og.BrenierPotential(y, h).assign(source.sample(samples, seed=2)), minlength=n).double()
    keep = counts >= 50
    return og.DiscreteMeasure(y[keep], counts[keep])


def main() -> None:
    """Print one line a problem and method."""
    methods = sys.argv[1:] or ["adam"]
    print("source                  n  method      status      samples   L1 %  (noise %)   chi2      seconds")
    for dim in (2, 5, 16, 64):
        for source in (og.UniformBox(dim=dim), og.Gaussian(dim)):
            target = planted(source, 200, 8_000_000)
            fresh = source.sample(1_000_000, seed=77)
            for method in methods:
                result = og.solve(source, target, method=method, tol=5e-4, seed=1)
                w = torch.bincount(result.potential.assign(fresh), minlength=target.n).double() / len(fresh)
                noise = (2 / torch.pi * target.weights / len(fresh)).sqrt().sum()
                print(
                    f"{source!r:20} {target.n:5d}  {method:10} {result.status:10} {result.n_samples:9.1e}"
                    f" {100 * float((w - target.weights).abs().sum()):6.2f}  ({100 * float(noise):.2f})"
                    f"  {result.certificate.chi2:9.1e} {result.seconds:7.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
