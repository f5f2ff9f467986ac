"""``otgan sample``: new points from a saved solution."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otgan.cli.common import OK, Common, Run, UsageError, load_run, note, optional, say, say_json, writable_folder
from otgan.cli.images import SampleFlags, holds_images, sample_images

_SUFFIXES = (".npy", ".csv")


@dataclass(frozen=True, kw_only=True)
class Sample(SampleFlags, Common):
    """Draw points from a saved solution.

    The entropic generator makes new points, barycentres of neighbouring targets; nearest is the
    optimal transport map itself, which returns points of the training set.

      otgan sample runs/points -n 1000
      otgan sample runs/points -n 5 --generator nearest --out -

    Of images it writes samples.npy and a grid of the first hundred, samples.png, into RUN.

      otgan sample runs/digits -n 100 --label 3
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` wrote."""
    n: Annotated[int, tyro.conf.arg(name="n-samples", aliases=("-n",))] = 1000
    """How many points."""
    seed: int = 0
    """Of the draw: the same seed gives the same points."""
    generator: Literal["entropic", "nearest"] = "entropic"
    """How a draw of the source becomes a point."""
    reg: Annotated[float | None, optional("NUMBER")] = None
    """Smoothing of the entropic generator; by a rule in n^(-1/2) when left out."""
    out: Annotated[str | None, optional("PATH")] = None
    """File, .npy or .csv; - prints CSV. samples.npy in RUN when left out."""

    def run(self) -> int:
        """Draw and write."""
        if self.n < 1:
            raise UsageError(f"-n must be at least 1, got {self.n}.")
        if self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}.")
        if self.reg is not None and self.generator != "entropic":
            raise UsageError("--reg smooths the entropic generator; leave it out with --generator nearest.")
        if self.reg is not None and not 0.0 < self.reg < float("inf"):
            raise UsageError(f"--reg must be a finite number > 0, got {self.reg:g}.")
        if holds_images(self.run_):
            return sample_images(self)
        if self.label is not None:
            raise UsageError(f"--label is for images that were fitted by class; {self.run_} holds none.")
        if self.out == "-" and self.json:
            raise UsageError("--out - prints the points on standard output, --json a report: choose one.")
        path = None if self.out == "-" else Path(self.out) if self.out is not None else self.run_ / "samples.npy"
        if path is not None and path.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--out must end in {' or '.join(_SUFFIXES)} (or be -), got {path}.")
        saved = load_run(self.run_)
        if path is not None:
            writable_folder(path.parent)
        import numpy as np

        from otgan.generators.entropic import entropic_reg

        u, source = saved.potential, saved.source
        x = source.sample(self.n, seed=self.seed, dtype=u.points.dtype)
        reg = None
        if self.generator == "entropic":
            reg = self.reg if self.reg is not None else entropic_reg(u, source)
            points = u.smooth_transport(x, reg).cpu().numpy()
        else:
            points = u.transport(x).cpu().numpy()
        try:
            if path is None:
                np.savetxt(sys.stdout, points, delimiter=",", fmt="%.9g")
            elif path.suffix.lower() == ".csv":
                np.savetxt(path, points, delimiter=",", fmt="%.9g" if points.dtype == np.float32 else "%.17g")
            else:
                with open(path, "wb") as file:  # np.save would add a second ending to .NPY
                    np.save(file, points, allow_pickle=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"Cannot write {path}: {error.strerror or error}.") from None
        how = f"entropic map, reg = {reg:.4g}" if reg is not None else "transport map: points of the training set"
        if self.json:
            settings = {"generator": self.generator, "reg": reg, "seed": self.seed}
            say_json({"out": path, "n_samples": self.n, "dim": u.dim, **settings})
        elif path is None:
            note(f"{self.n:,} points by the {how}.")
        else:
            say(f"{self.n:,} points of dimension {u.dim} in {path} ({how}).")
        return OK
