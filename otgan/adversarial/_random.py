"""Random streams of a run: one for each purpose, none of them torch's global one."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose: equal ones would make the first noise a copy of the first weights."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little") >> 1


class PrivateRandom:
    """What torch draws globally within ``used()``, as dropout does, comes from a stream of the run's own.

    Args:
        seed: of the stream.
        device: where the networks are.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.states = [torch.Generator().manual_seed(seed).get_state()]
        if device.type == "cuda":
            self.states.append(torch.Generator(device).manual_seed(seed).get_state())

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Put the run's stream in place of the global one, and back."""
        cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if cuda else []):
            torch.set_rng_state(self.states[0])
            if cuda:
                torch.cuda.set_rng_state(self.states[1], self.device)
            try:
                yield
            finally:
                self.states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if cuda else [])]
