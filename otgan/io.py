"""Saving and loading: a folder with config.json and model.safetensors, never pickle.

The two files are replaced so that a crash at any moment leaves a folder that loads: both new files are first written
under temporary names and forced to disk, then renamed, the tensors first. config.json carries the SHA-256 of its
tensors, so a crash between the two renames is recognised and completed at the next load.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMAT = "otgan"
FORMAT_VERSION = 1
CONFIG, TENSORS = "config.json", "model.safetensors"
_NEW = ".new"

Loader = Callable[[dict[str, Any], dict[str, Tensor]], Any]
_LOADERS: dict[str, Loader] = {}


class FormatError(ValueError):
    """A file that is damaged, foreign, or from a newer version."""


def register(kind: str) -> Callable[[Loader], Loader]:
    """Make :func:`load` rebuild objects of ``kind`` with the decorated function of (config, tensors)."""

    def decorate(loader: Loader) -> Loader:
        _LOADERS[kind] = loader
        return loader

    return decorate


def save(path: str | Path, kind: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write one object into the folder ``path``, atomically; other files in the folder are left alone.

    Args:
        path: the folder; made when it does not exist.
        kind: the registered name of its class.
        config: plain settings. Non-finite numbers become null.
        tensors: named tensors, on any device.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a model is saved as a folder of that name: choose another path.")
    folder.mkdir(parents=True, exist_ok=True)
    blob = to_bytes(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, {"format": FORMAT, "kind": kind}
    )
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "tensors_sha256": hashlib.sha256(blob).hexdigest(),
        "config": _plain(config),
    }
    text = json.dumps(document, indent=2, allow_nan=False).encode()
    with _locked(folder):
        _replace(folder, blob, text)
    return folder


def _replace(folder: Path, blob: bytes, text: bytes) -> None:
    """Put both files in place, each step leaving a folder that loads."""
    # A save that was cut off between its renames must be completed before its temporary files are written over.
    if (folder / (CONFIG + _NEW)).exists() and not (folder / (TENSORS + _NEW)).exists():
        _complete(folder)
    (folder / (CONFIG + _NEW)).unlink(missing_ok=True)
    _write(folder / (TENSORS + _NEW), blob)
    _write(folder / (CONFIG + _NEW), text)
    _sync_folder(folder)
    os.replace(folder / (TENSORS + _NEW), folder / TENSORS)
    os.replace(folder / (CONFIG + _NEW), folder / CONFIG)
    _sync_folder(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes that save or load there (where the system has such locks)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have none
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def load(path: str | Path) -> Any:
    """Read back what a ``save`` method wrote: a potential, a result, a model.

    Args:
        path: the folder that was given to ``save`` (or one of its two files).

    Raises:
        FileNotFoundError: nothing there.
        FormatError: not written by otgan, damaged, or by a newer version; the message says which.
    """
    folder = Path(path)
    if folder.is_file() and folder.name in (CONFIG, TENSORS):
        folder = folder.parent
    with _locked(folder) if folder.is_dir() else contextlib.nullcontext():
        kind, config, tensors = _read(folder)
    if kind not in _LOADERS:
        raise FormatError(
            f"{folder} holds a {kind!r}, which this version does not know ({', '.join(sorted(_LOADERS))})."
        )
    try:
        with torch.random.fork_rng(devices=[]):  # networks draw weights as they are made, from the global state
            return _LOADERS[kind](config, tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise FormatError(f"{folder} does not describe a {kind}: {type(error).__name__}: {error}.") from error


def _read(folder: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    if not folder.exists():
        raise FileNotFoundError(f"There is no {folder}; expected a folder with {CONFIG} and {TENSORS}.")
    if not folder.is_dir():
        raise FormatError(f"{folder} is a file, not a folder with {CONFIG} and {TENSORS}; otgan never reads pickles.")
    missing = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if missing and not (missing == [CONFIG] and (folder / (CONFIG + _NEW)).is_file()):
        raise FormatError(
            f"{folder} has no {' and no '.join(missing)}; it was not written by otgan, or not completely."
        )
    blob = (folder / TENSORS).read_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    document = _document(folder / CONFIG) if not missing else {}
    if document.get("tensors_sha256") != digest and (folder / (CONFIG + _NEW)).is_file():
        pending = _document(folder / (CONFIG + _NEW))
        if pending.get("tensors_sha256") == digest:  # the save was cut off between its two renames
            document = pending
    if document.get("tensors_sha256") != digest:
        raise FormatError(
            f"{folder / TENSORS} does not match {CONFIG} (SHA-256 differs): damaged, or from another model."
        )
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        tensors = from_bytes(blob)
    except SafetensorError as error:
        raise FormatError(f"{folder / TENSORS} is not a readable safetensors file: {error}.") from None
    return str(document["kind"]), document["config"], tensors


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not readable JSON ({error}): damaged, or not written by otgan.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(f"{path} was not written by otgan (its 'format' is not {FORMAT!r}).")
    version = document.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {version}, this otgan reads up to {FORMAT_VERSION}: update otgan."
        )
    if not isinstance(document.get("kind"), str) or not isinstance(document.get("config"), dict):
        raise FormatError(f"{path} lacks 'kind' or 'config': damaged.")
    return document


def _complete(folder: Path) -> None:
    """Finish the second rename of a save that was cut off, if that is what happened."""
    pending = folder / (CONFIG + _NEW)
    if (folder / TENSORS).is_file():
        try:
            wanted = _document(pending).get("tensors_sha256")
        except FormatError:
            return
        if wanted == hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest():
            os.replace(pending, folder / CONFIG)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere folders cannot be opened; the renames are still ordered
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    """JSON's types only; infinities and NaN become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
