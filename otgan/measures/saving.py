"""Sources as plain settings and tensors, whatever their class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otgan.measures.base import Source

if TYPE_CHECKING:
    from torch import Tensor


def _classes() -> dict[str, type[Source]]:
    import otgan.measures

    return {
        name: item
        for name, item in vars(otgan.measures).items()
        if isinstance(item, type) and issubclass(item, Source) and item is not Source
    }


def pack_source(source: Source) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings, the class among them, and tensors under ``source.``; a class of the caller's own is refused."""
    known = _classes()
    if known.get(type(source).__name__) is not type(source):
        raise TypeError(
            f"A {type(source).__name__} source cannot be read back and is not saved; known are "
            f"{', '.join(sorted(known))}."
        )
    settings, tensors = source.state()
    return {"class": type(source).__name__, **settings}, {f"source.{name}": t for name, t in tensors.items()}


def unpack_source(config: dict[str, Any], tensors: dict[str, Tensor]) -> Source:
    """Inverse of :func:`pack_source`; tensors of other names are left alone."""
    settings = dict(config)
    name = settings.pop("class")
    known = _classes()
    if name not in known:
        raise ValueError(f"unknown source {name!r}")
    return known[name].from_state(settings, {k[7:]: t for k, t in tensors.items() if k.startswith("source.")})
