"""Results of a benchmark on disk: one JSON file that grows, a folder of what was trained, and a watch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import machine, say, write
from torch import Tensor

import otgan as og


@dataclass
class Watch:
    """Seconds of the wall clock and of the process since it was made."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def read(self) -> dict[str, float]:
        """Both so far."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


class Store:
    """``FILE.json`` and the folder ``FILE``: what is there is not made again.

    Args:
        file: the JSON file.
        settings: of the benchmark; those of an earlier run with the same file must be equal.
        reading: nothing will be run, so that settings do not matter.
    """

    def __init__(self, file: Path, settings: dict[str, Any], reading: bool = False) -> None:
        self.file, self.folder = file, file.with_suffix("")
        self.results: dict[str, Any] = {"settings": settings, "machine": {}, "stages": {}, "rows": {}}
        if file.exists():
            self.results = json.loads(file.read_text(encoding="utf-8"))
            if not reading and self.results["settings"] != settings:
                sys.exit(f"{file} holds results of other settings ({self.results['settings']}): choose another --out.")
        elif reading:
            sys.exit(f"There is no {file} yet: run the benchmark first.")
        if not reading:
            self.results["machine"] = machine(torch.get_num_threads())

    @property
    def rows(self) -> dict[str, Any]:
        """By name."""
        rows: dict[str, Any] = self.results["rows"]
        return rows

    def write(self) -> None:
        """Replace the file in one step."""
        write(self.file, self.results)

    def stage(self, name: str, make: Callable[[], tuple[Any, dict[str, Any]]]) -> Any:
        """What ``make`` returns, an object that can be saved and numbers about it; read back if it was made before."""
        folder = self.folder / name
        if name in self.results["stages"] and (folder / "config.json").exists():
            return og.load(folder)
        say(f"{name} ...")
        watch = Watch()
        made, numbers = make()
        self.results["stages"][name] = numbers | watch.read()
        made.save(folder)
        self.write()
        say(f"{name}: {_line(self.results['stages'][name])}")
        return made

    def seconds(self, *names: str, clock: str = "wall") -> float:
        """Of stages, together."""
        return sum(self.results["stages"][name][clock] for name in names)

    def samples(self, name: str, make: Callable[[], tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, dict[str, Any]]:
        """Bytes (n, c, h, w) that ``make`` draws, and numbers about it; kept, so that they can be measured again."""
        safe = "".join(letter if letter.isalnum() else "_" for letter in name)
        path, about = self.folder / f"samples_{safe}.npy", self.results.setdefault("samples", {})
        if name in about and path.exists():
            return torch.from_numpy(np.load(path, allow_pickle=False)), about[name]
        drawn, numbers = make()
        pixels = drawn if drawn.dtype == torch.uint8 else (drawn.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, pixels.cpu().numpy(), allow_pickle=False)
        about[name] = numbers
        self.write()
        return pixels.cpu(), numbers


def _line(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
