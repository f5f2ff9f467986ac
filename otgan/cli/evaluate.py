"""``otgan evaluate``: a fresh certificate of a saved solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from otgan.cli.common import OK, Common, Run, UsageError, certificate_table, load_run, optional, say, say_json


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Measure a saved solution on fresh samples: cell masses, Wasserstein distance.

    otgan evaluate runs/points
    otgan evaluate runs/points --n-samples 1000000 --json
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` wrote."""
    n_samples: Annotated[int | None, optional("COUNT")] = None
    """Fresh samples; 50 a target (20,000 to 2,000,000) when left out."""
    seed: Annotated[int | None, optional("INT")] = None
    """Of the samples; a new one at each call when left out. It is printed."""

    def run(self) -> int:
        """Certify and print."""
        if self.n_samples is not None and self.n_samples < 2:
            raise UsageError(f"--n-samples must be at least 2, got {self.n_samples}.")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}.")
        saved = load_run(self.run_)
        import secrets

        from otgan.certificate import certify

        seed = self.seed if self.seed is not None else secrets.randbits(31)
        certificate = certify(saved.potential, saved.source, self.n_samples, seed=seed)
        if self.json:
            say_json({"run": self.run_, "seed": seed, "certificate": certificate.to_dict()})
        else:
            what = f"{saved.source!r} to {saved.potential.n:,} points"
            say(certificate_table(certificate, f"{self.run_}: {what}, seed {seed}"))
        return OK
