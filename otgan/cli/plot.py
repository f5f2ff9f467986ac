"""``otgan plot``: pictures of a saved solution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from otgan.cli.common import (
    OK,
    PICTURE_SUFFIXES,
    Common,
    Picture,
    Run,
    UsageError,
    note,
    optional,
    pictures_of,
    save_picture,
    say,
    say_json,
    writable_folder,
)
from otgan.cli.runs import load_run


@dataclass(frozen=True, kw_only=True)
class Plot(Common):
    """Draw a saved solution.

    otgan plot runs/points
    otgan plot runs/points --what transport_map --out map.pdf
    """

    run_: Annotated[Run, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder that `otgan fit` wrote."""
    what: Literal["all"] | Picture = "all"
    """Which picture."""
    out: Annotated[Path | None, optional("PATH")] = None
    """File (.png, .svg, .pdf) of one picture, or the folder of all; RUN when left out."""

    def run(self) -> int:
        """Draw and save."""
        suffix = self.out.suffix.lower() if self.out is not None else ""
        if self.what == "all" and suffix in PICTURE_SUFFIXES:
            raise UsageError(f"--out {self.out} is one file: choose one picture with --what, or name a folder.")
        if self.what != "all" and self.out is not None and suffix not in PICTURE_SUFFIXES:
            raise UsageError(f"--out must end in one of {', '.join(PICTURE_SUFFIXES)}, got {self.out}.")
        saved = load_run(self.run_).result
        if self.what == "all":
            folder = self.out if self.out is not None else self.run_
            wanted = {name: folder / f"{name}.png" for name, *_ in pictures_of(saved)}
        else:
            wanted = {self.what: self.out if self.out is not None else self.run_ / f"{self.what}.png"}
        for path in wanted.values():
            writable_folder(path.parent)
        written = []
        for name, draw, why_not in pictures_of(saved):
            if name not in wanted:
                continue
            if draw is not None:
                written.append(save_picture(draw, wanted[name]))
            elif self.what == "all":
                note(f"No {name}: {why_not}.")
            else:
                raise UsageError(f"No {name}: {why_not}; transport_map shows every dimension.")
        if self.json:
            say_json({"run": self.run_, "pictures": written})
        else:
            say("\n".join(str(path) for path in written))
        return OK
