"""``Autoencoder``: images to codes that a transport map can learn, and back."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from otgan import io
from otgan._checks import as_count, as_device, as_positive
from otgan.datasets import DataError
from otgan.latent._training import AutoencoderReport, Settings, Training
from otgan.latent.coder import Coder, as_images, unit
from otgan.latent.networks import ConvCoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otgan.latent._training import AutoencoderState
    from otgan.latent.coder import ImagesLike

_MOST_HELD_OUT = 2000
_BLOCK = 1 << 12
_STEPS, _FEWEST_STEPS, _EPOCHS = 10_000, 1000, 300


class Autoencoder(nn.Module, Coder):
    """Convolutional autoencoder for small images.

    Minimises ``E |D(E(x) + s r e) - x|^2 / V + penalty E|z|^2 / d + whiten |cov z - 1|^2 / d``, with codes z = E(x), e
    standard normal, r the root mean square of the codes, V the variance of a pixel. Noise s makes the
    decoder smooth on the scale at which a transport map errs between codes; the penalties bound the codes or make them
    uncorrelated with variance 1, as a Gaussian source is.

    Args:
        latent: dimension d of the codes.
        width: channels after the first of the convolutions, doubled at each halving of the sides.
        hidden: units between the convolutions and the codes.
        seed: of initial weights, held-out images, batches and noise.

    Attributes:
        shape: (c, h, w) of the images, set by :meth:`fit`.
        report: how it was trained; of the last :meth:`fit` or :meth:`refine`.

    Example:
        >>> images = torch.rand(200, 1, 8, 8)
        >>> autoencoder = Autoencoder(latent=4, width=4, hidden=16).fit(images, steps=20)
        >>> autoencoder.encode(images[:3]).shape, autoencoder.decode(torch.zeros(2, 4)).shape
        (torch.Size([3, 4]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(self, latent: int = 32, *, width: int = 32, hidden: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.latent = as_count(latent, "latent", 1)
        self.width, self.hidden = as_count(width, "width", 1), as_count(hidden, "hidden", 1)
        self.seed = as_count(seed, "seed")
        self.report: AutoencoderReport | None = None
        self._network: ConvCoder | None = None

    # ------------------------------------------------------------- training

    def fit(
        self,
        images: ImagesLike,
        *,
        held_out: float | ImagesLike = 0.05,
        steps: int | None = None,
        batch: int = 256,
        lr: float = 4e-3,
        penalty: float = 0.0,
        whiten: float = 0.0,
        noise: float = 0.0,
        averaging: float = 0.05,
        patience: int = 10,
        max_time: float | None = None,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        device: str | torch.device | None = None,
        progress: bool = False,
        callback: Callable[[AutoencoderState], object] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
    ) -> Autoencoder:
        """Train anew on images: Adam with a cosine-shaped rate, averaged weights; the best on held-out images are kept.

        Args:
            images: see :func:`otgan.images.read`; or uint8 or reals in [0, 1] of shape (n, c, h, w), (n, h, w).
            held_out: their share that only measures, 2,000 at most; or other images; 0 holds none out, and returns the
                last weights.
            steps: of Adam; 10,000 when left out, or 300 passes over the images (1,000 steps at least) if that is less.
            batch: images a step.
            lr: largest rate.
            penalty: weight of the codes' mean square.
            whiten: weight of the distance of their covariance to the identity.
            noise: s, in units of the codes' root mean square. On MNIST after 2.2 epochs the error was 0.00564, 0.00568
                and 0.00710 for s = 0, 0.1 and 0.3 (``otgan bench latent --steps 500 --only-autoencoder``).
            averaging: share of the run over which weights are averaged, exponentially.
            patience: measurements (40 in a run) without improvement, after which training ends.
            max_time: seconds; the rate falls in time for it.
            precision: of convolutions and matrix products in training. "auto": bfloat16 where the processor computes
                with it, which took half the time on an AMD EPYC of the 5th generation; float32 elsewhere. Encoding and
                decoding are float32.
            device: where to train and stay; a GPU where there is one when left out.
            progress: show a bar on standard error.
            callback: called with an :class:`AutoencoderState` after every measurement; a true return value ends it.
            checkpoint: folder in which training keeps its state; when it holds one of the same training, that is
                continued and, without ``max_time``, ends as if it had not been interrupted.
            checkpoint_every: steps between two writes.

        Returns:
            The autoencoder itself. Ctrl-C also ends training, with status "interrupted" and the best weights so far.

        Raises:
            DataError: too few images, sides that cannot be halved twice, a code longer than the image or the data.
            RuntimeError: the loss is NaN or infinite.
        """
        pixels = as_images(images)
        train, held = self._parted(pixels, held_out)
        c, h, w = pixels.shape[1:]
        if self.latent >= c * h * w:
            raise DataError(f"latent={self.latent} is no shorter than the images, which have {c * h * w} numbers.")
        if self.latent >= len(train):
            raise DataError(
                f"latent={self.latent} needs more than {self.latent} images to train on, got {len(train)}; lower it "
                "or give more images."
            )
        size = as_count(batch, "batch", 2)
        network = ConvCoder((c, h, w), self.latent, width=self.width, hidden=self.hidden, seed=self.seed)
        _standardise(network, train)
        where = as_device(device, "cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(where)
        settings = Settings(
            steps=_default_steps(len(train), size) if steps is None else as_count(steps, "steps", 1),
            batch=size,
            lr=as_positive(lr, "lr"),
            seed=self.seed,
            penalty=_not_negative(penalty, "penalty"),
            whiten=_not_negative(whiten, "whiten"),
            noise=_not_negative(noise, "noise"),
            averaging=min(_not_negative(averaging, "averaging"), 1.0),
            patience=as_count(patience, "patience", 1),
            max_time=math.inf if max_time is None else as_positive(max_time, "max_time"),
            half=_half(precision, where),
            checkpoint=checkpoint,
            checkpoint_every=as_count(checkpoint_every, "checkpoint_every", 1),
        )
        return self._trained(settings, train, held, progress, callback)

    def refine(
        self,
        images: ImagesLike,
        *,
        held_out: float | ImagesLike = 0.05,
        steps: int = 4000,
        batch: int = 256,
        lr: float = 1e-3,
        noise: float = 0.0,
        averaging: float = 0.05,
        patience: int = 10,
        max_time: float | None = None,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        progress: bool = False,
        callback: Callable[[AutoencoderState], object] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
    ) -> Autoencoder:
        """Train the decoder on, with the encoder frozen: all codes, and what was learned from them, stay valid.

        Arguments as of :meth:`fit`. A decoder that does not get better on held-out images stays as it was.
        """
        network = self.network
        pixels = as_images(images, self.shape)
        train, held = self._parted(pixels, held_out)
        settings = Settings(
            steps=as_count(steps, "steps", 1),
            batch=as_count(batch, "batch", 2),
            lr=as_positive(lr, "lr"),
            seed=self.seed,
            penalty=0.0,
            whiten=0.0,
            noise=_not_negative(noise, "noise"),
            averaging=min(_not_negative(averaging, "averaging"), 1.0),
            patience=as_count(patience, "patience", 1),
            max_time=math.inf if max_time is None else as_positive(max_time, "max_time"),
            half=_half(precision, self.device),
            checkpoint=checkpoint,
            checkpoint_every=as_count(checkpoint_every, "checkpoint_every", 1),
            phase="decoder",
        )
        before = {name: t.clone() for name, t in network.state_dict().items()}
        error = math.nan if held is None else self.reconstruction_error(held)
        self._trained(settings, train, held, progress, callback)
        assert self.report is not None
        if self.report.held_out > error:
            network.load_state_dict(before)
        return self

    def _parted(self, pixels: Tensor, held_out: float | ImagesLike) -> tuple[Tensor, Tensor | None]:
        """Images to train on, and held-out ones."""
        n = len(pixels)
        if not isinstance(held_out, (int, float)):
            _, c, h, w = pixels.shape
            return pixels, as_images(held_out, (c, h, w))
        if not 0.0 <= held_out < 1.0:
            raise ValueError(f"held_out must be a share 0 <= share < 1, or images, got {held_out!r}.")
        count = min(round(n * held_out), _MOST_HELD_OUT)
        if n - count < 2:
            raise DataError(f"An autoencoder needs at least 2 images to train on, got {n}.")
        if count == 0:
            return pixels, None
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        return pixels[order[count:].sort().values], pixels[order[:count].sort().values]

    def _trained(
        self,
        settings: Settings,
        train: Tensor,
        held: Tensor | None,
        progress: bool,
        callback: Callable[[AutoencoderState], object] | None,
    ) -> Autoencoder:
        where = self.device
        training = Training(settings, self.network, train.to(where), None if held is None else held.to(where))
        self.report = training.run(progress, callback)
        return self

    # ----------------------------------------------------------- what it is

    @property
    def network(self) -> ConvCoder:
        """Encoder and decoder."""
        if self._network is None:
            raise RuntimeError("This autoencoder has not been trained yet; call fit(images) first.")
        return self._network

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(c, h, w) of the images."""
        return self.network.shape

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.mean.device

    def _encode(self, images: Tensor) -> Tensor:
        return self.network.encode(images)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes)

    def forward(self, images: Tensor) -> Tensor:
        """``decode(encode(images))``, with its graph; images float32 in [0, 1], shape (k, c, h, w)."""
        return self.network.decode(self.network.encode(images))

    # --------------------------------------------------------------- saving

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain settings and tensors, from which an equal autoencoder is made."""
        report = None if self.report is None else asdict(self.report)
        return {"network": self.network.config(), "seed": self.seed, "report": report}, self.network.state_dict()

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        return io.save(path, "Autoencoder", *self.pack())

    def __repr__(self) -> str:
        state = "not trained" if self._network is None else f"shape={self.shape}"
        return f"Autoencoder(latent={self.latent}, width={self.width}, hidden={self.hidden}, {state})"


@io.register("Autoencoder")
def unpack_autoencoder(config: dict[str, Any], tensors: dict[str, Tensor]) -> Autoencoder:
    """Inverse of :meth:`Autoencoder.pack`."""
    known = config["network"]
    made = Autoencoder(known["latent"], width=known["width"], hidden=known["hidden"], seed=config["seed"])
    c, h, w = known["shape"]
    made._network = ConvCoder((c, h, w), known["latent"], width=known["width"], hidden=known["hidden"]).eval()
    made._network.load_state_dict(tensors)
    report = config["report"]
    if report is not None:
        made.report = AutoencoderReport(
            **{**report, "held_out": math.nan if report["held_out"] is None else report["held_out"]}
        )
    return made


@torch.no_grad()
def _standardise(network: ConvCoder, train: Tensor) -> None:
    """Mean image, and the deviation of a pixel around it."""
    total, squares = torch.zeros(train.shape[1:], dtype=torch.float64), 0.0
    for block in train.split(_BLOCK):
        total += unit(block).double().sum(dim=0)
    mean = total / len(train)
    for block in train.split(_BLOCK):
        squares += float((unit(block).double() - mean).square().sum())
    variance = squares / train.numel()
    if variance == 0.0:
        raise DataError(f"All {len(train)} images are the same: there is nothing to learn.")
    network.mean.copy_(mean)
    network.deviation.fill_(variance**0.5)


def _default_steps(n: int, batch: int) -> int:
    """Few images are learned by heart in fewer steps."""
    return min(_STEPS, max(_FEWEST_STEPS, _EPOCHS * n // batch))


def _half(precision: str, device: torch.device) -> bool:
    """Whether training computes in bfloat16."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}.")
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Elsewhere torch emulates it, slower than float32.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


def _not_negative(value: float, name: str) -> float:
    return 0.0 if value == 0 else as_positive(value, name)
