"""Critics against known potentials: ``python tests/benchmarks/bench_critic.py [--seconds 60]``.

The source is N(0, I_d), the data n = 5,000 samples of a law whose potentials are known in closed form for both costs:

- shift, N(t, I): the optimal map moves all by t; for |x - y| the critic is ``f(x) = <x, t> / |t|``, for |x - y|^2 / 2
  the Kantorovich potential is ``phi(x) = -<x, t>``.
- scale, N(0, s^2 I): mass moves along rays; ``f(x) = |x|`` and ``phi(x) = (1 - s) |x|^2 / 2``.

OTGAN's critic is compared with phi. WGAN and WGAN-GP learn theirs from the same data and the source as it stands (their
generator is the identity and learns nothing), for some seconds of processor time each, and are compared with f. All on
the same fresh source samples: correlation, and the error ``sd(critic - truth) / sd(truth)``, the constant left out.
Clipping leaves the scale of a critic open, and a penalty lets it exceed 1: theirs is the error at the best scale.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import otgan as og
from otgan.adversarial import TrainingState

SIZE, SCALE = 5000, 2.0


class Case(NamedTuple):
    """A law of the data as a map of the source, and the two potentials."""

    move: Callable[[Tensor], Tensor]
    lipschitz: Callable[[Tensor], Tensor]
    kantorovich: Callable[[Tensor], Tensor]


def cases(dim: int) -> dict[str, Case]:
    """By name."""
    t = torch.ones(dim) * 2.0 / dim**0.5
    return {
        "shift": Case(lambda x: x + t, lambda x: x @ t / t.norm(), lambda x: -(x @ t)),
        "scale": Case(lambda x: SCALE * x, lambda x: x.norm(dim=1), lambda x: (1 - SCALE) * x.square().sum(1) / 2),
    }


def agreement(found: Tensor, truth: Tensor, scaled: bool = False) -> tuple[float, float]:
    """Correlation and relative error, see above."""
    found, truth = found.double() - found.double().mean(), truth.double() - truth.double().mean()
    if scaled:
        found = found * (found @ truth / (found @ found))
    correlation = float(torch.corrcoef(torch.stack([found, truth]))[0, 1])
    return correlation, float((found - truth).norm() / truth.norm())


def adversarial(method: str, data: Tensor, seconds: float, dim: int, seed: int) -> og.adversarial.AdversarialModel:
    """A critic alone."""
    begun = time.process_time()

    def over(state: TrainingState) -> bool:
        return time.process_time() - begun >= seconds

    return og.adversarial.train(
        method,
        data,
        source=og.Gaussian(dim),
        generator=nn.Identity(),
        width=128,
        steps=10**8,
        seed=seed,
        callback=over,
        **({"penalty_weight": 10.0} if method == "wgan-gp" else {}),
    )


def main() -> None:
    """One row a case, dimension and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| case | d | critic | correlation | error | seconds |\n|---|---|---|---|---|---|")
    for dim in args.dims:
        source = og.Gaussian(dim)
        fresh = source.sample(20_000, seed=args.seed + 10)
        for name, case in cases(dim).items():
            data = case.move(source.sample(SIZE, seed=args.seed))
            begun = time.process_time()
            u = og.solve(source, data, seed=args.seed).potential
            spent = time.process_time() - begun
            rows = [("OTGAN", *agreement(u.kantorovich(fresh), case.kantorovich(fresh)), spent)]
            for method in ("wgan", "wgan-gp"):
                begun = time.process_time()
                model = adversarial(method, data, args.seconds, dim, args.seed)
                spent = time.process_time() - begun
                found = agreement(model.critic(fresh).detach(), case.lipschitz(fresh), scaled=True)
                rows.append((method, *found, spent))
            for method, correlation, error, spent in rows:
                print(f"| {name} | {dim} | {method} | {correlation:.4f} | {error:.3f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
