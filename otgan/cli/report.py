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
      otgan report runs/faces --test faces/test --train faces/train --classifier runs/classifier
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` or `otgan demo` wrote, or that a model was saved in."""
    out: Annotated[Path | None, optional("FILE")] = None
    """The page, .html; report.html in RUN when left out."""
    test: Annotated[Path | None, optional("FILE")] = None
    """Held-out points, one a row (.npy, .npz, text), or held-out images for a generator of images."""
    train: Annotated[Path | None, optional("FILE")] = None
    """Training images: new ones stand above the nearest of them."""
    classifier: Annotated[Path | None, optional("FOLDER")] = None
    """Saved classifier, in whose features images are measured; in codes when left out."""
    key: Annotated[str | None, optional("NAME")] = None
    """Which array of .npz files holds them."""
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
        if self.test is None and (self.metrics or self.classifier):
            raise UsageError("--metrics and --classifier need held-out data: pass --test FILE.")
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
        if self.train is not None and run.decode is None:
            raise UsageError(f"--train is for generators of images; {self.run_} holds its training points itself.")
        train = None if self.train is None else self._images(self.train, run)
        evaluation = self._measure(run) if self.test is not None else None
        import matplotlib

        matplotlib.use("agg")
        from otgan.report import write_report

        try:
            write_report(run, path, evaluation=evaluation, train_images=train, title=self.title, seed=self.seed)
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
        """New points or images beside the held-out ones."""
        from otgan.datasets import read_points
        from otgan.metrics import evaluate

        assert self.test is not None
        if run.encode is not None:
            return self._measure_images(run)
        given = read_points(self.test, self.key)
        for remark in given.notes:
            note(remark)
        dim = given.points.shape[1]
        if dim != run.dim:
            raise UsageError(f"{given.path} holds points of dimension {dim}, {self.run_} of {run.dim}.")
        if self.classifier is not None:
            raise UsageError(f"--classifier is for generators of images; {self.run_} holds points.")
        new = run.draw(len(given.points), self.seed).cpu()
        try:
            return evaluate(new, given.points, train=run.train, names=self.metrics or None, seed=self.seed)
        except ValueError as error:  # an unknown metric, or points that a metric cannot take
            raise UsageError(str(error)) from error

    def _measure_images(self, run: ReportedRun) -> Any:
        """In the features of a classifier, or else in the codes."""
        from otgan.metrics import evaluate, evaluate_images

        assert self.test is not None and run.encode is not None and run.decode is not None
        test = self._images(self.test, run)
        new = run.draw(len(test), self.seed)
        try:
            if self.classifier is None:
                codes = run.encode(test).cpu()
                return evaluate(new.cpu(), codes, train=run.train, names=self.metrics or None, seed=self.seed)
            classifier, train = self._loaded(self.classifier), None
            if self.train is not None:
                train = self._images(self.train, run)
            names = self.metrics or None
            return evaluate_images(run.decode(new), test, train, classifier, names=names, seed=self.seed)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _images(self, path: Path, run: ReportedRun) -> Any:
        """Images of a file or folder, in the shape that the run was made for."""
        from otgan.images import read

        assert run.decode is not None
        c, h, w = run.decode(run.train[:1]).shape[1:]
        return read(path, (h, w), c, key=self.key).pixels

    def _loaded(self, path: Path) -> Any:
        from otgan.io import FormatError
        from otgan.loading import load
        from otgan.metrics import ImageClassifier

        try:
            found = load(path)
        except (FormatError, OSError) as error:
            raise UsageError(str(error)) from None
        if not isinstance(found, ImageClassifier):
            raise UsageError(f"{path} holds a {type(found).__name__}, expected what train_classifier() saved.")
        return found
