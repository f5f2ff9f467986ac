"""Scratch-memory budget of the kernels: environment variable and context manager."""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
from collections.abc import Iterator

ENV = "OTGAN_MEMORY_BUDGET"
DEFAULT_BUDGET = 256 * 10**6

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", re.IGNORECASE)
_budget: contextvars.ContextVar[int | None] = contextvars.ContextVar("otgan_memory_budget", default=None)


def parse_bytes(text: str) -> int:
    """Number of bytes written as ``"256MB"``, ``"1.5 GiB"``, ``"4096"``.

    Args:
        text: a number with an optional unit among B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024).

    Returns:
        The number of bytes, at least 1.

    Raises:
        ValueError: if the text is not such a number, or is zero.
    """
    match = _PATTERN.fullmatch(text)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise ValueError(f"a memory size looks like '256MB', '1.5GiB' or '4096' (bytes) and is positive; got {text!r}.")
    return size


def current_budget() -> int:
    """Bytes of scratch that one kernel call may use for blocks of scores.

    The innermost :func:`memory_budget` context decides, then the environment variable ``OTGAN_MEMORY_BUDGET``, then
    256 MB. Copies of linear size, O((m + n) d), and the result are not counted.

    Raises:
        ValueError: if ``OTGAN_MEMORY_BUDGET`` is set to something that is not a size.
    """
    budget = _budget.get()
    if budget is not None:
        return budget
    text = os.environ.get(ENV, "").strip()
    if not text:
        return DEFAULT_BUDGET
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"environment variable {ENV}: {error}") from None


@contextlib.contextmanager
def memory_budget(size: int | str) -> Iterator[int]:
    """Limit the scratch memory of the kernel calls made inside the ``with`` block.

    Contexts nest (the innermost wins) and are private to the thread or asyncio task that opened them.

    Args:
        size: bytes, or a string such as ``"64MB"``.

    Yields:
        The budget in bytes.

    Raises:
        ValueError: if the size is not positive.
        TypeError: if it is neither an integer nor a string.

    Example:
        >>> import torch
        >>> from otgan.kernels import assign, memory_budget
        >>> with memory_budget("1MB"):
        ...     index, value = assign(torch.zeros(3, 2), torch.eye(2), torch.tensor([0.0, 1.0]))
        >>> index.tolist()
        [1, 1, 1]
    """
    if isinstance(size, str):
        size = parse_bytes(size)
    elif isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"the memory budget is an int (bytes) or a string such as '64MB'; got {type(size).__name__}.")
    if size < 1:
        raise ValueError(f"the memory budget must be at least 1 byte; got {size}.")
    token = _budget.set(size)
    try:
        yield size
    finally:
        _budget.reset(token)
