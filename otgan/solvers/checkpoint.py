"""Progress of a solve on disk, from which an interrupted run goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otgan import io

if TYPE_CHECKING:
    from torch import Tensor

    from otgan.measures import DiscreteMeasure, Source

_KIND = "Checkpoint"


class Checkpoint:
    """A folder that holds the latest state of one solve, replaced as a whole: a kill leaves the old one or the new.

    Args:
        path: the folder; it need not exist.
        every: seconds between two saves, so that saving costs little of the run.
        fingerprint: of everything that the course of the run depends on; the state of another run is refused.
    """

    def __init__(self, path: str | Path, every: float, fingerprint: str) -> None:
        self.path, self.every, self.fingerprint = Path(path), every, fingerprint
        self._saved = time.perf_counter()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Settings and tensors of the last save; None if there is none.

        Raises:
            ValueError: if the folder holds the state of another problem, or something else, or cannot be written.
        """
        self._prepare()
        if not (self.path / io.CONFIG).exists() and not (self.path / io.TENSORS).exists():
            return None
        found = io.load(self.path)
        if not isinstance(found, _Saved):
            raise ValueError(f"{self.path} holds a {type(found).__name__}, not a checkpoint; choose another folder.")
        if found.config["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{self.path} holds the progress of another run: data, networks, tol, seed and settings must be the "
                "same to go on from it. Choose another folder, or delete this one to start anew."
            )
        return found.config["state"], found.tensors

    def _prepare(self) -> None:
        """Make the folder now: a path that cannot be written would be found out when the first hour is lost."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; progress is kept in a folder: choose another path.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"No folder {self.path} can be made for the progress: {error}.") from error
        if not os.access(self.path, os.W_OK):
            raise ValueError(f"The folder {self.path} cannot be written to: choose another one for the progress.")

    def due(self) -> bool:
        """Whether it is time for the next save."""
        return time.perf_counter() - self._saved >= self.every

    def save(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Replace what is on disk by plain settings and arrays."""
        tensors = {name: _tensor(array) for name, array in arrays.items()}
        io.save(self.path, _KIND, {"fingerprint": self.fingerprint, "state": state}, tensors)
        self._saved = time.perf_counter()


def _tensor(array: np.ndarray) -> Tensor:
    """The same numbers and shape; numpy's contiguous copies have one axis at least, which a scalar has not."""
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)


class _Saved:
    """What a checkpoint folder holds."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.config, self.tensors = config, tensors


@io.register(_KIND)
def _load(config: dict[str, Any], tensors: dict[str, Tensor]) -> _Saved:
    return _Saved({"fingerprint": config["fingerprint"], "state": config["state"]}, tensors)


def fingerprint(source: Source, target: DiscreteMeasure, *settings: Any) -> str:
    """Digest of a problem and of the settings, whose ``repr`` must say all that matters."""
    digest = hashlib.sha256(repr(settings).encode())
    config, tensors = source.state()
    digest.update(repr((type(source).__name__, sorted(config.items()))).encode())
    for tensor in (*(tensors[name] for name in sorted(tensors)), target.points, target.weights):
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        for piece in tensor.detach().split(1 << 16) if tensor.ndim else [tensor.detach()]:
            digest.update(piece.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
