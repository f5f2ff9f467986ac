"""``otgan fit``: points in, a saved solution out."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from otgan.cli.common import (
    FAILED,
    INTERRUPTED,
    NOT_CONVERGED,
    OK,
    Common,
    Place,
    UsageError,
    flag,
    note,
    optional,
    save_pictures,
    say,
    say_json,
    watched,
)
from otgan.cli.images import ImageFlags, fit_images, wants_images
from otgan.cli.runs import Kind, SavedRun, own_kind

if TYPE_CHECKING:
    from otgan.datasets import PointFile
    from otgan.generators import OTGAN
    from otgan.measures import DiscreteMeasure, Source
    from otgan.solvers import Result


@dataclass(frozen=True, kw_only=True)
class Fit(ImageFlags, Common):
    """Transport a source to the points of a file, and save the solution.

    The points are the rows of FILE: .npy, .npz, or text (.csv, .tsv, .txt). The source is a
    standard one in their dimension: its place and size do not change which mass goes where.
    With --generator a generator is fitted as well: auto compares some on points held out, see
    `otgan sample` for the others. Ctrl-C saves the best so far.

      otgan fit points.csv
      otgan fit points.csv --generator auto
      otgan fit codes.npz --key train --source ball --out runs/codes --plots

    With --latent FILE holds images: a folder of pictures (a subfolder for each class), an IDX
    file, .npy or .npz. An autoencoder learns codes of that length, which are then the points.

      otgan fit photographs --latent 32 --size 64
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Points, one a row; or images, with --latent."""
    out: Annotated[Path | None, optional("PATH")] = None
    """Folder of the solution; runs/NAME-OF-FILE when left out."""
    source: Literal["gaussian", "cube", "ball"] = "gaussian"
    """Standard normal, uniform on [0,1]^d, or uniform on the unit ball."""
    generator: Annotated[Literal["auto"] | Kind | None, optional("NAME")] = None
    """auto, local, icnn, mlp, entropic, extension or nearest; the solution alone when left out."""
    method: str = "auto"
    """Solver; auto picks one and says why."""
    p: float = 2.0
    """Exponent of the cost |x-y|^p / p, above 1; 2 is the quadratic one."""
    tol: Annotated[float | None, optional("NUMBER")] = None
    """Stop at this error: for sampling solvers chi2 of the cell masses."""
    seed: int = 0
    """Of all random numbers."""
    max_time: Annotated[float | None, optional("SECONDS")] = None
    """Stop after so many seconds, with the best so far."""
    max_iter: Annotated[int | None, optional("COUNT")] = None
    """Stop after so many iterations."""
    checkpoint: Annotated[Path | None, optional("FOLDER")] = None
    """Save progress here every minute; a run that was killed goes on from it."""
    weights: Annotated[Path | None, optional("FILE")] = None
    """File of one weight > 0 a point, same formats; uniform when left out."""
    weights_key: Annotated[str | None, optional("NAME")] = None
    """Array of weights: in the file of --weights, else in FILE itself (.npz)."""
    key: Annotated[str | None, optional("NAME")] = None
    """Which array of an .npz FILE holds the points."""
    dtype: Annotated[Literal["float32", "float64"] | None, optional("{float32,float64}")] = None
    """Precision of the points; that of the file when left out."""
    overwrite: Annotated[bool, flag] = False
    """Replace the model that is in the folder, and drop its pictures, samples and report."""
    plots: Annotated[bool, flag] = False
    """Also draw pictures into the folder."""
    progress: Annotated[bool, flag] = True
    """Show no progress bar."""

    def run(self) -> int:
        """Read, solve, save, report."""
        if wants_images(self):
            return fit_images(self)
        from otgan.datasets import read_points

        given = read_points(self.file, self.key)
        for remark in given.notes:
            note(remark)
        target = self._target(given)
        source = self._source(target.dim)
        if self.generator is not None and self.p != 2.0:
            raise UsageError(f"--generator is for p = 2, got --p {self.p:g}; leave one of them out.")
        place = Place.of(self.out if self.out is not None else Path("runs") / self.file.stem, self.overwrite)
        merged = "" if target.n == target.n_given else f" ({target.n_given - target.n:,} duplicates merged)"
        note(f"{given.path}: {target.n:,} points in dimension {target.dim}{merged}. Source: {source!r}.")
        try:
            fitted = self._solved(source, target) if self.generator is None else self._fitted(source, target)
        except (ValueError, TypeError) as error:  # settings that do not fit; the points are checked by now
            place.withdraw()
            raise UsageError(str(error)) from error
        return self._saved(fitted, place)

    def _solved(self, source: Source, target: DiscreteMeasure) -> SavedRun:
        """The solution alone."""
        from otgan.solvers import solve

        result = solve(
            source,
            target,
            self.method,
            p=self.p,
            tol=self.tol,
            seed=self.seed,
            max_time=self.max_time,
            max_iter=self.max_iter,
            progress=self.progress and watched(),
            checkpoint=self.checkpoint,
        )
        return SavedRun(result)

    def _fitted(self, source: Source, target: DiscreteMeasure) -> SavedRun:
        """The solution and a generator."""
        from otgan._checks import as_count
        from otgan.generators import OTGAN

        model = OTGAN(
            source,
            self.generator or "auto",
            method=self.method,
            tol=self.tol,
            seed=self.seed,
            solver={} if self.max_iter is None else {"max_iter": as_count(self.max_iter, "max_iter", 1)},
        )
        progress = self.progress and watched()
        try:
            model.fit(target, max_time=self.max_time, progress=progress, checkpoint=self.checkpoint)
        except (Exception, KeyboardInterrupt) as error:
            if not model.solved:
                raise
            if self.debug:
                traceback.print_exc()
            return SavedRun(model.result, lost=error)
        return SavedRun(model.result, model)

    def _saved(self, fitted: SavedRun, place: Place) -> int:
        """Save and report; returns the exit code."""
        from otgan.report import provenance

        result, model = fitted.result, fitted.model

        inputs = [path for path in (self.file, self.weights) if path is not None]

        def save(folder: Path) -> None:
            (result if model is None else model).save(folder)
            provenance.write(folder, "fit", self, inputs)

        folder, as_asked = place.saved(save, inputs)
        pictures = save_pictures(result, folder) if self.plots and result.status != "interrupted" else []
        if self.json:
            generator = {} if model is None else {"generator": describe_generator(model)}
            say_json(describe(result) | generator | {"run": folder, "pictures": pictures})
        else:
            say(result.summary())
            if model is not None:
                say(generator_line(model))
            say(f"Saved in {folder}. Next: otgan sample {folder}")
        if isinstance(fitted.lost, KeyboardInterrupt):
            note("otgan: interrupted while the generator was made; the solution is saved without one.")
            return INTERRUPTED
        if fitted.lost is not None:
            note(f"otgan: the generator could not be made, the solution is saved without one: {fitted.lost}")
        if result.status == "interrupted" or (model is not None and model.interrupted):
            return INTERRUPTED
        if fitted.lost is not None or not as_asked:
            return FAILED
        return OK if result.converged else NOT_CONVERGED

    def _target(self, given: PointFile) -> DiscreteMeasure:
        from otgan.datasets import read_weights
        from otgan.measures import DiscreteMeasure

        points = given.points if self.dtype is None else given.points.astype(self.dtype)
        weights = None
        if self.weights is not None:
            weights = read_weights(self.weights, len(points), self.weights_key)
        elif self.weights_key is not None:
            weights = read_weights(self.file, len(points), self.weights_key)
        try:
            return DiscreteMeasure(points, weights)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{given.path}: {error}") from error

    def _source(self, dim: int) -> Source:
        from otgan.measures import Gaussian, UniformBall, UniformBox

        if self.source == "gaussian":
            return Gaussian(dim)
        return UniformBox(dim=dim) if self.source == "cube" else UniformBall(dim)


def describe_generator(model: OTGAN) -> dict[str, Any]:
    """Which generator a model holds, and the scores of those that "auto" compared, in plain numbers."""
    settings = {
        name: getattr(model.generator, name) for name in ("reg", "neighbours") if hasattr(model.generator, name)
    }
    scores = {name: {**score._asdict(), "total": score.total} for name, score in model.scores.items()}
    return {"name": own_kind(model), **settings, "scores": scores}


def generator_line(model: OTGAN) -> str:
    """The same in words."""
    scores = ", ".join(f"{name} {score.total:.3f}" for name, score in model.scores.items())
    compared = f" (scores on points held out, 0 is best: {scores})" if scores else ""
    return f"Generator: {own_kind(model)}{compared}."


def describe(result: Result) -> dict[str, Any]:
    """A result in plain numbers."""
    return {
        "status": result.status,
        "converged": result.converged,
        "message": result.message,
        "method": result.method,
        "reason": result.reason,
        "p": result.potential.p,
        "tol": result.tol,
        "n": result.potential.n,
        "dim": result.potential.dim,
        "source": repr(result.source),
        "n_iter": result.n_iter,
        "n_samples": result.n_samples,
        "n_scores": result.n_scores,
        "seconds": result.seconds,
        "certificate": result.certificate.to_dict(),
    }
