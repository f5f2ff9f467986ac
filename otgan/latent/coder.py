"""What a pipeline asks of an autoencoder: images to codes, codes to images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_points, as_tensor
from otgan.images import ImageDataset, Images

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    ImagesLike = Images | ImageDataset | Tensor | NDArray[Any]

_BLOCK = 1 << 11


def as_images(images: ImagesLike, shape: tuple[int, int, int] | None = None) -> Tensor:
    """Images in any form to a tensor (n, c, h, w), uint8 or float32 in [0, 1].

    Args:
        images: :class:`otgan.images.Images` or another dataset of images; or numbers of shape (n, c, h, w), or
            (n, h, w) for grey ones, uint8 or reals in [0, 1].
        shape: (c, h, w) that is expected, if any.
    """
    if isinstance(images, ImageDataset):
        pixels = images.load().pixels
    else:
        if isinstance(images, (str, Path)):
            raise TypeError(f"images are numbers, got the path {str(images)!r}; read it with otgan.images.read(path).")
        pixels = images if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
        if pixels.dtype != torch.uint8:
            pixels = as_tensor(pixels, "images").float()
        if pixels.ndim == 3:
            pixels = pixels[:, None]
        if pixels.ndim != 4 or 0 in pixels.shape or pixels.shape[1] not in (1, 3):
            raise ValueError(
                f"images must have shape (n, c, h, w) with c = 1 or 3, or (n, h, w), got {tuple(pixels.shape)}; "
                "otgan.images.read() and Images.of() bring them there."
            )
        if pixels.dtype != torch.uint8:
            low, high = (float(end) for end in torch.aminmax(pixels))
            if not (0.0 <= low and high <= 1.0):  # NaN too
                raise ValueError(f"images must be uint8, or reals in [0, 1]; they go from {low:g} to {high:g}.")
    if shape is not None and tuple(pixels.shape[1:]) != shape:
        raise ValueError(
            f"images have shape (c, h, w) = {tuple(pixels.shape[1:])}, the autoencoder was made for {shape}; pass "
            "size= and channels= to otgan.images.read()."
        )
    return pixels


def unit(pixels: Tensor) -> Tensor:
    """Float32 in [0, 1]."""
    return pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels


class Coder(ABC):
    """Images to codes of dimension ``latent`` and back."""

    latent: int
    shape: tuple[int, int, int]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """Codes (k, latent) of one block of images (k, c, h, w), float32 in [0, 1]."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Images (k, c, h, w) of one block of codes (k, latent), float32; numbers beyond [0, 1] are cut off."""

    @torch.no_grad()
    def encode(self, images: ImagesLike) -> Tensor:
        """Codes, shape (n, latent), float32."""
        pixels = as_images(images, self.shape)
        return torch.cat([self._encode(unit(block.to(self.device))) for block in pixels.split(_BLOCK)])

    @torch.no_grad()
    def decode(self, codes: Tensor | NDArray[Any]) -> Tensor:
        """Images, shape (n, c, h, w), float32 in [0, 1]."""
        z = as_points(codes, "codes", self.latent, allow_empty=True).float()
        if len(z) == 0:
            return torch.empty((0, *self.shape), device=self.device)
        return torch.cat([self._decode(block.to(self.device)).clamp(0.0, 1.0) for block in z.split(_BLOCK)])

    def reconstruct(self, images: ImagesLike) -> Tensor:
        """``decode(encode(images))``."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def reconstruction_error(self, images: ImagesLike) -> float:
        """Mean over images and pixels of ``(decode(encode(x)) - x)^2``, grey levels in [0, 1]."""
        pixels, total = as_images(images, self.shape), 0.0
        for block in pixels.split(_BLOCK):
            x = unit(block.to(self.device))
            total += float((self._decode(self._encode(x)).clamp(0.0, 1.0) - x).double().square().sum())
        return total / pixels.numel()


class Pair(Coder):
    """Any encoder and decoder as an autoencoder.

    Args:
        encode: images (k, c, h, w), float32 in [0, 1], to codes (k, d): a function or a torch module.
        decode: codes (k, d) to images (k, c, h, w), or (k, c h w).
        shape: (c, h, w).
        latent: d; that of the code of one blank image when left out.

    Raises:
        TypeError: either cannot be called.
        ValueError: they answer with other shapes, or with NaN or infinities.

    Example:
        >>> halves = Pair(lambda x: x.flatten(1)[:, ::2], lambda z: z.repeat_interleave(2, dim=1), (1, 4, 4))
        >>> halves.latent, halves.decode(torch.zeros(3, 8)).shape
        (8, torch.Size([3, 1, 4, 4]))
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        shape: tuple[int, int, int],
        latent: int | None = None,
    ) -> None:
        for name, function in (("encode", encode), ("decode", decode)):
            if not callable(function):
                raise TypeError(f"{name} must be a function or a torch module, got {type(function).__name__}.")
        self.encoder, self.decoder = encode, decode
        c, h, w = shape
        self.shape = (c, h, w)
        with torch.no_grad():
            code = self.encoder(torch.zeros((1, *self.shape)))
        if not isinstance(code, Tensor) or code.ndim != 2:
            what = tuple(code.shape) if isinstance(code, Tensor) else type(code).__name__
            raise ValueError(
                f"encode must return codes of shape (k, d), got {what} for one image; flatten each to a row."
            )
        self.latent = int(code.shape[1]) if latent is None else latent
        self._encode(torch.zeros((1, *self.shape)))

    def _encode(self, images: Tensor) -> Tensor:
        codes = self.encoder(images)
        if not isinstance(codes, Tensor) or codes.shape != (len(images), self.latent):
            raise ValueError(
                f"encode must return codes of shape ({len(images)}, {self.latent}), got "
                f"{tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__}; flatten each to one row."
            )
        if not bool(torch.isfinite(codes).all()):
            raise ValueError("encode returned NaN or infinite codes.")
        return codes.float()

    def _decode(self, codes: Tensor) -> Tensor:
        images = self.decoder(codes)
        if not isinstance(images, Tensor) or images.numel() != len(codes) * int(np.prod(self.shape)):
            raise ValueError(
                f"decode must return images of shape {(len(codes), *self.shape)}, got "
                f"{tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__}."
            )
        return images.float().reshape(len(codes), *self.shape)
