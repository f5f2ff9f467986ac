"""Where a saved run comes from: the file ``run.json`` beside it, which commands write and the report reads."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = "run.json"
_PACKAGES = ("otgan", "torch", "numpy", "scipy", "numba", "POT")
_BLOCK = 1 << 20
_QUIET = ("json", "debug", "progress")  # of a command's settings: they change nothing in what is saved
_LARGEST = 1 << 20  # bytes of a record that is read


def write(folder: str | Path, command: str, settings: Any, inputs: Iterable[str | Path] = ()) -> Path:
    """Record how the run in ``folder`` was made.

    Args:
        folder: of the run.
        command: such as "fit".
        settings: the command, a dataclass; what differs from its defaults is repeated in the command line.
        inputs: files that were read, whose SHA-256 is recorded. Folders are named only.
    """
    record = {
        "command": command_line(command, settings),
        "settings": {name: _plain(value) for name, value in _settings(settings).items()},
        "inputs": [_input(Path(path)) for path in inputs],
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    path = Path(folder) / FILE
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def read(folder: str | Path) -> dict[str, Any]:
    """The record of a run; empty where there is none that can be read."""
    path = Path(folder) / FILE
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def command_line(command: str, settings: Any) -> str:
    """What to type to run ``otgan COMMAND`` with these settings again, quoted for a shell."""
    words = ["otgan", command]
    named: list[str] = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in _QUIET or value is None or value == field.default:
            continue
        if field.default is MISSING:
            words.append(str(value))  # what has no default stands by its place
            continue
        flag = "--" + field.name.rstrip("_").replace("_", "-")
        if isinstance(value, bool):
            named.append(flag)
        else:
            named += [flag, *(map(str, value) if isinstance(value, (tuple, list)) else [str(value)])]
    return shlex.join([*words, *named])


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Of the packages that a result depends on, as far as they are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _settings(settings: Any) -> dict[str, Any]:
    if not is_dataclass(settings):
        raise TypeError(f"settings must be a dataclass, got {type(settings).__name__}.")
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in _QUIET}


def _input(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"path": str(path)}
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)
