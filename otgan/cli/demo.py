"""``otgan demo``: the library at work on real data, in two minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from otgan.cli.common import INTERRUPTED, OK, Common, UsageError, flag, note, say, say_json, watched, writable_folder


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Learn handwritten digits, draw new ones, and check that they are not copies.

    Takes some ten seconds on two free cores. The 1,797 digits come with scikit-learn: nothing is
    fetched. Pictures and the saved model go to the folder.

      otgan demo
      otgan demo --quick --out /tmp/demo
    """

    out: Path = Path("runs/demo")
    """Folder of pictures and model."""
    seed: int = 0
    """Of all random numbers."""
    quick: Annotated[bool, flag] = False
    """Fewer digits and codes: seconds, with a coarser answer."""
    progress: Annotated[bool, flag] = True
    """Show no progress bar."""

    def run(self) -> int:
        """Run the demo and print its report."""
        if self.seed < 0:
            raise UsageError(f"--seed must be at least 0, got {self.seed}.")
        folder = writable_folder(self.out)
        if (folder / "config.json").exists() and not (folder / "codes.npz").exists():
            raise UsageError(f"{folder} holds a model that is not the demonstration's; choose another --out.")
        import matplotlib

        matplotlib.use("agg")
        from otgan.demo import run_demo
        from otgan.report import provenance

        report = run_demo(folder, seed=self.seed, quick=self.quick, progress=self.progress and watched(), say=note)
        provenance.write(folder, "demo", self)
        if self.json:
            say_json(report.to_dict())
        else:
            say(report.text())
        if report.result.status == "interrupted":
            return INTERRUPTED
        return OK  # a bar that a slow machine did not reach is in the report, and no failure of a demonstration
