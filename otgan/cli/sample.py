"""``otgan sample``: new points from a saved solution."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otgan.cli.common import OK, Common, Run, UsageError, note, optional, say, say_json, whole_file, writable_folder
from otgan.cli.images import SampleFlags, holds_images, sample_images
from otgan.cli.runs import Kind, load_run

_SUFFIXES = (".npy", ".csv")


@dataclass(frozen=True, kw_only=True)
class Sample(SampleFlags, Common):
    """Draw points from a saved solution.

    A run that was fitted with --generator draws with it, any other one with the entropic map:
    barycentres of neighbouring targets. local stretches each cell over the neighbourhood of its
    target, extension stays between modes that touch, nearest is the optimal transport map itself,
    which returns points of the training set.

      otgan sample runs/points -n 1000
      otgan sample runs/points -n 1000 --generator local
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
    generator: Annotated[Kind | None, optional("NAME")] = None
    """local, entropic, extension or nearest, or the network that was fitted; the run's own when left out."""
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
        if self.reg is not None and self.generator not in (None, "entropic"):
            raise UsageError(f"--reg smooths the entropic generator; leave it out with --generator {self.generator}.")
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

        drawn = saved.draw(self.n, self.seed, self.generator, self.reg)
        points, dim = drawn.points, drawn.points.shape[1]
        form = "%.9g" if points.dtype == np.float32 else "%.17g"  # as many digits as tell two numbers apart
        try:
            if path is None:
                if sys.stdout is None:
                    raise UsageError("--out - prints the points on the standard output, which is closed.")
                np.savetxt(sys.stdout, points, delimiter=",", fmt=form)
            else:
                with whole_file(path) as file:
                    if path.suffix.lower() == ".csv":
                        np.savetxt(file, points, delimiter=",", fmt=form)
                    else:
                        np.save(file, points, allow_pickle=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = "the standard output" if path is None else path
            raise UsageError(f"Cannot write {place}: {error.strerror or error}.") from None
        if self.json:
            settings = {"generator": drawn.generator, "reg": drawn.reg, "seed": self.seed}
            say_json({"out": path, "n_samples": self.n, "dim": dim, **settings})
        elif path is None:
            note(f"{self.n:,} points by the {drawn.how}.")
        else:
            say(f"{self.n:,} points of dimension {dim} in {path} ({drawn.how}).")
        return OK
