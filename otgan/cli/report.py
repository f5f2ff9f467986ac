"""``otgan report``: one HTML page about a saved run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from otgan.cli.common import OK, Common, Run, UsageError, note, optional, say, say_json, writable_folder

if TYPE_CHECKING:
    from otgan.report.run import Run as ReportedRun

_FILE = "report.html"
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """Write one HTML page about a run: certificate, pictures, new samples, how to reproduce it.

    The page is one file that loads nothing: it can be sent, archived and opened anywhere. With
    --test new points are measured against held-out ones, each figure beside that of real points.

      otgan report runs/points
      otgan report runs/codes --test heldout.npy --out codes.html
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` or `otgan demo` wrote, or that a model was saved in."""
    out: Annotated[Path | None, optional("FILE")] = None
    """The page, .html; report.html in RUN when left out."""
    test: Annotated[Path | None, optional("FILE")] = None
    """Held-out points, one a row: .npy, .npz, or text."""
    key: Annotated[str | None, optional("NAME")] = None
    """Which array of an .npz file holds them."""
    metrics: Annotated[tuple[str, ...], optional("NAME ...")] = ()
    """Which metrics; all when left out. A wrong name lists them."""
    title: Annotated[str | None, optional("TEXT")] = None
    """Of the page; the name of RUN when left out."""
    seed: int = 0
    """Of the new samples."""

    def run(self) -> int:
        """Read, measure, write."""
        if self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}.")
        if self.out is not None and self.out.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--out must end in {' or '.join(_SUFFIXES)}, got {self.out}.")
        if self.test is None and (self.metrics or self.key):
            raise UsageError("--metrics and --key need held-out points: pass --test FILE.")
        from otgan.io import FormatError
        from otgan.report.run import open_run

        try:
            run = open_run(self.run_)
        except (FormatError, FileNotFoundError, TypeError) as error:
            raise UsageError(str(error)) from None
        except OSError as error:
            raise UsageError(f"{self.run_} cannot be read: {error.strerror or error}.") from None
        path = self.out if self.out is not None else self.run_ / _FILE
        writable_folder(path.parent)
        evaluation = self._measure(run) if self.test is not None else None
        import matplotlib

        matplotlib.use("agg")
        from otgan.report import write_report

        try:
            write_report(run, path, evaluation=evaluation, title=self.title, seed=self.seed)
        except OSError as error:
            raise UsageError(f"Cannot write {path}: {error.strerror or error}.") from None
        if self.json:
            say_json(
                {"run": self.run_, "report": path, "bytes": path.stat().st_size, "measured": evaluation is not None}
            )
        else:
            say(f"{path} ({path.stat().st_size / 1e6:.1f} MB, one file).")
        return OK

    def _measure(self, run: ReportedRun) -> Any:
        """New points beside the held-out ones."""
        from otgan.datasets import read_points
        from otgan.metrics import evaluate

        assert self.test is not None
        given = read_points(self.test, self.key)
        for remark in given.notes:
            note(remark)
        if given.points.shape[1] != run.dim:
            raise UsageError(
                f"{given.path} holds points of dimension {given.points.shape[1]}, {self.run_} of {run.dim}."
            )
        if len(run.parts) > 1:
            raise UsageError(f"{self.run_} has one map a class; held-out points are compared with one map only.")
        part = run.parts[0]
        new = part.sample(len(given.points), self.seed).cpu()
        train = part.result.target.points.cpu()
        try:
            return evaluate(new, given.points, train=train, names=self.metrics or None, seed=self.seed)
        except ValueError as error:  # an unknown metric, or points that a metric cannot take
            raise UsageError(str(error)) from error
