"""What all commands share: exit codes, the two output streams, JSON, folders and pictures."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import tyro

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from otgan.certificate import Certificate
    from otgan.solvers import Result

_PRODUCTS = ("samples.npy", "samples.png", "reconstruction.png", "report.html")  # of a run, beside its model
OK, FAILED, USAGE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 3, 130
Picture = Literal["power_diagram", "transport_map", "convergence", "mass_histogram"]
PICTURES: tuple[str, ...] = get_args(Picture)
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


class UsageError(Exception):
    """Bad input or usage: one sentence on standard error, exit code 2."""


flag: Any = tyro.conf.arg(help_behavior_hint="")
"""A switch; its name says what it does, so the help shows no default."""


def optional(metavar: str) -> Any:
    """A flag that may be left out; its help says what then happens."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of every command."""

    json: Annotated[bool, flag] = False
    """Print one JSON document on standard output, and nothing else."""
    debug: Annotated[bool, flag] = False
    """On an error, show where in the code it happened."""

    def run(self) -> int:
        """Do the work; returns the exit code."""
        raise NotImplementedError

    @classmethod
    def help(cls, whole: bool) -> str:
        """The class's docstring for ``--help``, or its first line for the list of commands."""
        first, *rest = inspect.cleandoc(cls.__doc__ or "").splitlines()
        # tyro joins lines that begin with a letter, and then does not wrap them: an indent keeps ours.
        return "\n".join([first, *(f"  {line}" if line else "" for line in rest)]) if whole else first


Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""Positional argument: a folder that `otgan fit` or `otgan demo` wrote."""


def say(text: str = "") -> None:
    """A result: standard output."""
    print(text)


def note(text: str) -> None:
    """Progress, remarks and errors: standard error, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def watched() -> bool:
    """Whether somebody looks at the standard error, and may be shown progress bars."""
    return sys.stderr is not None and sys.stderr.isatty()


def say_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output; NaN and infinities are null."""
    print(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """JSON's types only."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    number = float(value)
    return number if math.isfinite(number) else None


def writable_folder(folder: Path) -> Path:
    """Make ``folder`` and see that files can be written into it, before hours of work are spent on what goes there."""
    probe = folder / ".otgan-can-write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{folder} cannot be a folder: a file of that name is in the way. Choose another.") from None
    except OSError as error:
        raise UsageError(f"Cannot write into {folder}: {error.strerror or error}. Choose another folder.") from None
    return folder


@dataclass(frozen=True)
class Place:
    """Where a model goes.

    Attributes:
        folder: it is there, and can be written into.
        made: by this run.
        overwritten: whether it holds a model already.
    """

    folder: Path
    made: bool
    overwritten: bool

    @classmethod
    def of(cls, folder: Path, overwrite: bool) -> Place:
        """A folder that holds no model yet, unless that may be replaced."""
        there = (folder / "config.json").exists()
        if there and not overwrite:
            raise UsageError(f"{folder} holds a model already; choose another --out, or pass --overwrite.")
        made = not folder.exists()
        return cls(writable_folder(folder), made, there)

    def saved(self, save: Callable[[Path], object], inputs: Iterable[Path]) -> tuple[Path, bool]:
        """Save here, or where there is room; the folder, and whether it is this one."""
        elsewhere = rescued(save, self.folder)
        if elsewhere is not None:
            return elsewhere, False
        if self.overwritten:
            forget_products(self.folder, inputs)
        return self.folder, True

    def withdraw(self) -> None:
        """Leave no empty folder behind, if this run made it."""
        if self.made:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # unless something is there


def rescued(save: Callable[[Path], object], folder: Path) -> Path | None:
    """Save into ``folder``; where that fails (a full disk), into a new folder for temporary files.

    Returns:
        The folder of temporary files, if it came to that: what took hours is not lost.
    """
    try:
        save(folder)
    except OSError as error:
        place = Path(tempfile.mkdtemp(prefix="otgan-"))
        try:
            save(place)
        except OSError:
            raise error from None
        note(f"otgan: cannot write into {folder}: {error.strerror or error}. Saved in {place} instead; move it soon.")
        return place
    return None


def forget_products(folder: Path, inputs: Iterable[Path]) -> None:
    """Remove the pictures, samples and report of a model that is overwritten: they are not of the new one."""
    kept = {path.resolve() for path in inputs}
    for name in (*_PRODUCTS, *(f"{picture}.png" for picture in PICTURES)):
        if (folder / name).resolve() not in kept:
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when all of it is written, and that leaves what was there before until then.

    Links are followed, permissions kept; pipes and devices are written to as they are.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        with open(place, "wb") as file:
            yield file
        return
    handle, name = tempfile.mkstemp(prefix=".otgan-", dir=place.parent)
    part = Path(name)
    try:
        with open(handle, "wb") as file:
            yield file
        if place.exists():
            shutil.copymode(place, part)
        else:
            part.chmod(0o666 & ~_umask())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    """Which permissions new files of this process lack; the system has no way to ask but to set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def certificate_table(certificate: Certificate, title: str) -> str:
    """A certificate under its title."""
    return f"{title}\n" + "\n".join(f"  {line}" for line in certificate.table().splitlines())


# ---------------------------------------------------------------- pictures


def save_picture(draw: Callable[[], Axes], path: Path) -> Path:
    """Draw without a screen and save; the ending of ``path`` is the format."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure = cast("Figure", draw().figure)
    try:
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror or error}.") from None
    finally:
        plt.close(figure)
    return path


def pictures_of(result: Result) -> Iterator[tuple[str, Callable[[], Axes] | None, str]]:
    """Name, drawing function (None where it does not apply) and the reason why not, of every picture of a result."""
    from otgan import plot

    dim, p = result.potential.dim, result.potential.p
    yield (
        "power_diagram",
        (lambda: plot.power_diagram(result)) if dim == 2 and p == 2.0 else None,
        f"a power diagram is drawn for p = 2 in dimension 2, this is p = {p:g} in dimension {dim}",
    )
    yield "transport_map", lambda: plot.transport_map(result), ""
    yield "convergence", lambda: plot.convergence(result), ""
    yield "mass_histogram", lambda: plot.mass_histogram(result), ""


def save_pictures(result: Result, folder: Path) -> list[Path]:
    """Every picture that applies, as PNG."""
    return [save_picture(draw, folder / f"{name}.png") for name, draw, _ in pictures_of(result) if draw is not None]
