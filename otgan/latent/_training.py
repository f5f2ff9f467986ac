"""The training loop of an autoencoder: cosine rates, averaged weights, held-out errors, exact continuation."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan import io
from otgan._optimizers import optimizer_tensors, restore_optimizer
from otgan.latent.coder import unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgan.latent.networks import ConvCoder

_MEASUREMENTS = 40  # in a run
_WARM_STEPS = 100  # over which the rate rises
_BLOCK = 1 << 10
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class AutoencoderState:
    """One measurement, handed to callbacks.

    Attributes:
        step: steps done.
        steps: planned.
        phase: "both" or "decoder".
        loss: mean squared error of pixels over the steps since the last measurement.
        held_out: that of the averaged weights on images held out; NaN without.
        seconds: since the start.
    """

    step: int
    steps: int
    phase: str
    loss: float
    held_out: float
    seconds: float


@dataclass(frozen=True)
class AutoencoderReport:
    """How an autoencoder was trained.

    Attributes:
        phase: "both", or "decoder" where the encoder was frozen.
        status: "finished", "early_stop", "max_time", "stopped" (by a callback) or "interrupted".
        steps: done.
        epochs: passes over the training images.
        best_step: the step whose averaged weights were kept.
        held_out: their mean squared error on held-out images; NaN without.
        images: trained on.
        seconds: wall-clock time.
        history: one dictionary a measurement: step, phase, loss, held_out, seconds.
    """

    phase: str
    status: str
    steps: int
    epochs: float
    best_step: int
    held_out: float
    images: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Settings:
    """Numbers of one run; see :meth:`otgan.latent.Autoencoder.fit`."""

    steps: int
    batch: int
    lr: float
    seed: int
    penalty: float
    whiten: float
    noise: float
    averaging: float
    patience: int
    max_time: float
    half: bool
    checkpoint: str | Path | None
    checkpoint_every: int
    phase: str = "both"


class Training:
    """State of one run; the clock starts here."""

    def __init__(self, settings: Settings, network: ConvCoder, train: Tensor, held: Tensor | None) -> None:
        self.settings, self.network, self.train, self.held = settings, network, train, held
        self.begun = time.perf_counter()
        self.step = self.best_step = self.stale = 0
        self.best, self.total, self.summed = math.inf, 0.0, 0
        self.history: list[dict[str, Any]] = []
        moving = network if settings.phase == "both" else network.decoder
        self.parameters = list(moving.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.kept = [p.clone() for p in self.average]
        # Fused steps do the same arithmetic in one pass over the weights.
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.lr, betas=_BETAS, fused=True)
        self.every = max(settings.steps // _MEASUREMENTS, 1)
        self.batch = min(settings.batch, len(train))
        self.order, self.epoch = torch.empty(0, dtype=torch.long), -1

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def run(self, progress: bool, callback: Callable[[AutoencoderState], object] | None) -> AutoencoderReport:
        """Train the network in place; it ends with the averaged weights of the best measurement."""
        network, settings = self.network, self.settings
        self.codes = None if settings.phase == "both" else self._codes(self.train)
        self.held_codes = None if settings.phase == "both" or self.held is None else self._codes(self.held)
        self._resume()
        bar = None
        if progress:
            from tqdm.auto import tqdm

            what = "autoencoder" if settings.phase == "both" else "decoder"
            bar = tqdm(desc=what, total=settings.steps, initial=self.step, leave=False, mininterval=0.2)
        network.train()
        try:
            status = self._loop(callback, bar)
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            if bar is not None:
                bar.close()
        network.eval()
        if settings.checkpoint is not None and status != "finished":
            self._save()  # a run with a time limit ends where it ended, however often it is continued
        measured = math.isfinite(self.best)
        if not measured:
            self.kept, self.best_step = self.average, self.step
        self._put(self.kept)
        return AutoencoderReport(
            phase=settings.phase,
            status=status,
            steps=self.step,
            epochs=self.step * self.batch / len(self.train),
            best_step=self.best_step,
            held_out=self.best if measured else math.nan,
            images=len(self.train),
            seconds=self.seconds,
            history=self.history,
        )

    def _loop(self, callback: Callable[[AutoencoderState], object] | None, bar: Any) -> str:
        settings = self.settings
        while self.step < settings.steps:
            if self._schedule() >= 1.0:
                self._measure()
                return "max_time"
            loss = self._descend()
            if not math.isfinite(loss):
                raise RuntimeError(
                    f"The loss is {loss} at step {self.step} of {settings.steps}; lower lr (now {settings.lr:g})."
                )
            self.total, self.summed, self.step = self.total + loss, self.summed + 1, self.step + 1
            last = self.step == settings.steps
            state = self._measure() if self.step % self.every == 0 or last else None
            if bar is not None:
                bar.n = self.step
                bar.update(0)
            if state is not None:
                if bar is not None:
                    bar.set_postfix({"error": f"{state.loss:.5f}", "held out": f"{state.held_out:.5f}"})
                if callback is not None and callback(state):
                    return "stopped"
                if self.stale >= settings.patience:
                    return "early_stop"
            if settings.checkpoint is not None and (self.step % settings.checkpoint_every == 0 or last):
                self._save()
        return "finished"

    def _schedule(self) -> float:
        """Share of the run that is over, by steps or by time; sets the rate."""
        settings = self.settings
        fraction = max(self.step / settings.steps, self.seconds / settings.max_time)
        rise = min(1.0, (self.step + 1) / min(_WARM_STEPS, settings.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = settings.lr * rise * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
        return fraction

    def _batch(self) -> Tensor:
        """Numbers of the images of this step: each once an epoch, in an order that step and seed alone decide."""
        per_epoch = len(self.train) // self.batch
        epoch, place = divmod(self.step, per_epoch)
        if epoch != self.epoch:
            stream = torch.Generator().manual_seed((self.settings.seed << 20) + epoch)
            self.order, self.epoch = torch.randperm(len(self.train), generator=stream), epoch
        return self.order[place * self.batch : (place + 1) * self.batch].to(self.train.device)

    def _descend(self) -> float:
        settings, network = self.settings, self.network
        index = self._batch()
        x = unit(self.train[index])
        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.half):
            z = network.encode(x) if self.codes is None else self.codes[index]
            z = z.float()
            y = network.decode(self._noisy(z)).float()
        error = (y - x).square().mean()
        # In units of the images' variance, so that the penalties mean the same for every set.
        loss = error / network.deviation.square()
        if self.codes is None and settings.penalty:
            loss = loss + settings.penalty * z.square().mean()
        if self.codes is None and settings.whiten:
            loss = loss + settings.whiten * _distance_to_white(z)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        keep = min(1.0 - 1.0 / max(settings.averaging * settings.steps, 1.0), (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1.0 - keep)
        return float(error.detach())

    def _noisy(self, z: Tensor) -> Tensor:
        if not self.settings.noise:
            return z
        stream = torch.Generator(z.device).manual_seed((self.settings.seed << 24) + (1 << 23) + self.step)
        spread = z.square().mean().sqrt()  # with its gradient, or larger codes would be rewarded
        return z + self.settings.noise * spread * torch.randn(z.shape, generator=stream, device=z.device)

    @torch.no_grad()
    def _codes(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.network.encode(unit(block)) for block in pixels.split(_BLOCK)])

    @torch.no_grad()
    def _measure(self) -> AutoencoderState:
        """Error of the averaged weights on held-out images; keeps the best."""
        held = math.nan
        if self.held is not None:
            current = [p.clone() for p in self.parameters]
            self._put(self.average)
            held = self._error(self.held)
            self._put(current)
            if held < self.best:
                self.best, self.best_step, self.stale = held, self.step, 0
                self.kept = [p.clone() for p in self.average]
            else:
                self.stale += 1
        mean = self.total / self.summed if self.summed else math.nan
        self.total, self.summed = 0.0, 0
        state = AutoencoderState(self.step, self.settings.steps, self.settings.phase, mean, held, self.seconds)
        self.history.append({name: value for name, value in asdict(state).items() if name != "steps"})
        return state

    def _error(self, pixels: Tensor) -> float:
        total = 0.0
        for first in range(0, len(pixels), _BLOCK):
            x = unit(pixels[first : first + _BLOCK])
            z = self.network.encode(x) if self.held_codes is None else self.held_codes[first : first + _BLOCK]
            total += float((self.network.decode(z).clamp(0.0, 1.0) - x).double().square().sum())
        return total / pixels.numel()

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    # ------------------------------------------------------------ continuation

    _NUMBERS = ("step", "best_step", "stale", "best", "total", "summed", "history")

    def _identity(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the run that continues it."""
        left_out = ("checkpoint", "checkpoint_every", "max_time")
        settings = {name: value for name, value in asdict(self.settings).items() if name not in left_out}
        sums = [int(self.train.sum(dtype=torch.int64)) if self.train.dtype == torch.uint8 else float(self.train.sum())]
        return {**settings, "network": self.network.config(), "images": [list(self.train.shape), *sums]}

    def _save(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for k in range(len(self.parameters)):
            tensors |= {f"average.{k}": self.average[k], f"kept.{k}": self.kept[k]}
        tensors |= optimizer_tensors("adam", self.optimiser, self.parameters)
        numbers = {name: getattr(self, name) for name in self._NUMBERS} | {"seconds": self.seconds}
        assert self.settings.checkpoint is not None
        io.save(self.settings.checkpoint, "AutoencoderFit", {"identity": self._identity(), **numbers}, tensors)

    def _resume(self) -> None:
        path = self.settings.checkpoint
        if path is None or not (Path(path) / io.CONFIG).exists():
            return
        loaded = io.load(path)
        if not isinstance(loaded, Checkpoint) or loaded.config["identity"] != self._identity():
            raise ValueError(
                f"{path} holds something else than a checkpoint of this training (same images and settings); name "
                "another folder, or delete it to start anew."
            )
        config, tensors = loaded.config, loaded.tensors
        for name in self._NUMBERS:
            setattr(self, name, config[name])
        self.best = math.inf if self.best is None else self.best
        self.begun = time.perf_counter() - config["seconds"]
        device = self.train.device
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        for k in range(len(self.parameters)):
            self.average[k], self.kept[k] = tensors[f"average.{k}"].to(device), tensors[f"kept.{k}"].to(device)
        restore_optimizer("adam", self.optimiser, self.parameters, tensors)


def _distance_to_white(z: Tensor) -> Tensor:
    """``|mean z|^2 / d + |cov z - 1|_F^2 / d``: nought where the codes have mean 0 and the identity as covariance."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / max(len(z) - 1, 1)
    apart = covariance - torch.eye(z.shape[1], device=z.device)
    return (z.mean(dim=0).square().sum() + apart.square().sum()) / z.shape[1]


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`otgan.load` makes of a checkpoint."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@io.register("AutoencoderFit")
def _load_checkpoint(config: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(config, tensors)
