"""Results of a benchmark: JSON on disk, replaced in one step; the machine they belong to; what is told meanwhile."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any


def write(file: Path, results: dict[str, Any], indent: int | None = 1) -> None:
    """Replace the file in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(file.name + ".part")
    half.write_text(json.dumps(finite(results), indent=indent, allow_nan=False), encoding="utf-8")
    os.replace(half, file)


def finite(value: Any) -> Any:
    """JSON knows neither infinity nor NaN: null stands for both."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine(threads: int | None = None, packages: tuple[str, ...] = ("otgan", "numpy", "torch")) -> dict[str, Any]:
    """What the times belong to: processor, threads, versions of the packages that are there."""
    from otgan.report import provenance  # not at the top: what it imports reads the variables that limit_threads sets

    about = {"cpu": processor(), "threads": threads, "python": platform.python_version()}
    return {**about, "versions": provenance.versions(packages)}


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, with family and model where the system tells them: of one maker all may bear the same name."""
    if not info.exists():
        return platform.processor() or platform.machine()
    pairs = [line.partition(":") for line in info.read_text().splitlines()]
    told = {name.strip(): value.strip() for name, _, value in reversed(pairs)}  # of the first one
    name = told.get("model name") or platform.machine()
    return f"{name} (family {told['cpu family']}, model {told['model']})" if "cpu family" in told else name


def limit_threads(threads: int) -> None:
    """As many threads for everything in this process and in those that it starts.

    Numba takes torch's number. Its own variable must not change once its threads run: nothing could be compiled after.
    """
    import torch

    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(threads)


def say(text: str) -> None:
    """A line on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
