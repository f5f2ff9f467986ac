"""Results of a benchmark on disk: JSON, replaced in one step, so that an interrupted run loses nothing."""

from __future__ import annotations

import json
import math
import os
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
