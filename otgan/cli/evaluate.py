"""``otgan evaluate``: a fresh certificate of a saved solution, and its new points beside held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from otgan.cli.common import OK, Common, Run, UsageError, certificate_table, note, optional, say, say_json
from otgan.cli.runs import Kind, SavedRun, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otgan.metrics import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Measure a saved solution: on fresh samples of its source, and against held-out points.

    Cell masses and the Wasserstein distance are certified. With --test, new points are drawn and
    measured against the held-out ones: quality, coverage, memorisation, each beside the figure
    of real points.

      otgan evaluate runs/points
      otgan evaluate runs/codes --test heldout.npy
      otgan evaluate runs/codes --test heldout.npy --samples mine.npy --metrics energy copies
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` wrote."""
    n_samples: Annotated[int | None, optional("COUNT")] = None
    """Fresh samples of the certificate; 50 a target (20,000 to 2,000,000) when left out."""
    seed: Annotated[int | None, optional("INT")] = None
    """Of the samples; a new one at each call when left out. It is printed."""
    test: Annotated[Path | None, optional("FILE")] = None
    """Held-out points, one a row: .npy, .npz, or text."""
    samples: Annotated[Path | None, optional("FILE")] = None
    """Generated points to measure; drawn from RUN when left out."""
    train: Annotated[Path | None, optional("FILE")] = None
    """Training points; the targets of RUN when left out."""
    key: Annotated[str | None, optional("NAME")] = None
    """Which array of .npz files holds the points."""
    n_new: Annotated[int | None, optional("COUNT")] = None
    """New points to draw; as many as held-out ones when left out."""
    generator: Annotated[Kind | None, optional("NAME")] = None
    """How a draw of the source becomes a new point, see `otgan sample`; the run's own when left out."""
    metrics: Annotated[tuple[str, ...], optional("NAME ...")] = ()
    """Which metrics; all when left out. A wrong name lists them."""

    def run(self) -> int:
        """Certify, measure and print."""
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}.")
        if self.n_new is not None and self.n_new < 1:
            raise UsageError(f"--n-new must be at least 1, got {self.n_new}.")
        if self.test is None and any((self.samples, self.train, self.metrics, self.n_new, self.generator, self.key)):
            raise UsageError(
                "--samples, --train, --key, --metrics, --n-new and --generator need held-out points: pass --test FILE."
            )
        for name, given in (("--n-new", self.n_new), ("--generator", self.generator)):
            if self.samples is not None and given is not None:
                raise UsageError(f"{name} is for points drawn from RUN, --samples reads them: choose one.")
        saved = load_run(self.run_)
        import secrets

        from otgan.certificate import LEAST_SAMPLES, certify

        if self.n_samples is not None and self.n_samples < LEAST_SAMPLES:
            raise UsageError(f"--n-samples must be at least {LEAST_SAMPLES}, got {self.n_samples}.")
        seed = self.seed if self.seed is not None else secrets.randbits(31)
        # Held-out points first: a file that cannot be read should not cost the time of a certificate.
        measured = self._measure(saved, seed) if self.test is not None else None
        potential, source = saved.result.potential, saved.result.source
        certificate = certify(potential, source, self.n_samples, seed=seed)
        if self.json:
            report: dict[str, Any] = {"run": self.run_, "seed": seed, "certificate": certificate.to_dict()}
            say_json(report | ({"evaluation": measured.to_dict()} if measured is not None else {}))
        else:
            what = f"{source!r} to {potential.n:,} points"
            say(certificate_table(certificate, f"{self.run_}: {what}, seed {seed}"))
            if measured is not None:
                say()
                say(measured.table())
        return OK

    def _measure(self, saved: SavedRun, seed: int) -> Evaluation:
        from otgan.metrics import evaluate

        u = saved.result.potential
        test = self._read(self.test, u.dim)
        train = self._read(self.train, u.dim) if self.train is not None else u.points.cpu().numpy()
        if self.samples is not None:
            new = self._read(self.samples, u.dim)
        else:
            new = saved.draw(self.n_new or len(test), seed, self.generator).points
        try:
            return evaluate(new, test, train=train, names=self.metrics or None, seed=seed)
        except ValueError as error:  # an unknown metric, or points that a metric cannot take
            raise UsageError(str(error)) from error

    def _read(self, path: Path | None, dim: int) -> NDArray[Any]:
        from otgan.datasets import read_points

        given = read_points(path if path is not None else Path(), self.key)
        for remark in given.notes:
            note(remark)
        if given.points.shape[1] != dim:
            raise UsageError(f"{given.path} holds points of dimension {given.points.shape[1]}, {self.run_} of {dim}.")
        return given.points
