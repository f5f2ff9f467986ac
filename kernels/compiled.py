"""Keeps the kernels out of graphs traced by ``torch.compile``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_graph(function: Callable[P, R]) -> Callable[P, R]:
    """Make compiled code call ``function`` as it is: data-dependent shapes, contexts and KeOps cannot be traced.

    ``torch.compiler.disable`` imports the compiler, which takes a second; here only a call made while compiling does.

    Args:
        function: any function.

    Returns:
        The same function, at which a compiled graph breaks.
    """
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def shielded(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            if not disabled:
                disabled.append(torch.compiler.disable(function))
            return disabled[0](*args, **kwargs)
        return function(*args, **kwargs)

    return shielded
