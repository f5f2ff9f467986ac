"""The training loop of a generator: two losses, averaged weights, held-out measurements, exact continuation."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan import io
from otgan._optimizers import optimizer_tensors, restore_optimizer
from otgan._threads import one_thread
from otgan.generators.generator import FitReport
from otgan.generators.networks import ConvexNetwork, conjugate

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgan.generators._pairs import Pairs

_CONJUGATE_STEPS = 4  # a visit: each target starts where its last visit ended
_MEASURE_STEPS = 15
_WARM_STEPS = 100  # over which the rate rises
_SMALL = 1 << 17  # parameters of a network up to which one thread is best


@dataclass(frozen=True)
class FitState:
    """One measurement of a fit, handed to callbacks.

    Attributes:
        step: steps done.
        steps: planned.
        phase: "squared" or "fenchel-young".
        loss: mean over the steps since the last measurement; in |y|^2, or of "fenchel-young" in |x| |y|.
        held_out: loss of the averaged weights on held-out targets; NaN without.
        seconds: since the start.
    """

    step: int
    steps: int
    phase: str
    loss: float
    held_out: float
    seconds: float


@dataclass(frozen=True)
class Settings:
    """Numbers of one fit; ``squared`` is how many of the ``steps`` have the squared loss."""

    steps: int
    squared: int
    batch: int
    lr: float
    seed: int
    averaging: float
    patience: int
    max_time: float
    every: int
    checkpoint: str | Path | None
    checkpoint_every: int


class Training:
    """State of one fit; the clock starts here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.begun = time.perf_counter()
        self.step = self.done = self.best_step = self.stale = 0
        self.best = math.inf
        self.total, self.summed = 0.0, 0
        self.history: list[dict[str, Any]] = []

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    @property
    def phase(self) -> str:
        return "squared" if self.step < self.settings.squared else "fenchel-young"

    @property
    def phase_steps(self) -> tuple[int, int]:
        """First step of the phase, and the first after it."""
        settings = self.settings
        return (0, settings.squared) if self.step < settings.squared else (settings.squared, settings.steps)

    def run(
        self, network: nn.Module, pairs: Pairs, progress: bool, callback: Callable[[FitState], object] | None
    ) -> FitReport:
        """Train ``network`` in place; it ends with the averaged weights of the best measurement."""
        self.network, self.pairs = network, pairs
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.kept = [p.clone() for p in self.average]
        self.warm, self.held_warm = pairs.start.clone(), pairs.start[pairs.held_index].clone()
        matrix = pairs.coordinates.matrix * pairs.coordinates.scale
        size = float(matrix.norm()) / pairs.coordinates.dim**0.5 or 1.0
        # What is optimised has no unit, or it would leave the range of float32; what is reported is the data's.
        self.metric = (matrix / size).float()
        self.units = {"squared": size**2, "fenchel-young": float(pairs.coordinates.scale)}
        self.last = "squared" if self.settings.squared >= self.settings.steps else "fenchel-young"
        self._new_phase()
        self._resume()
        bar = None
        if progress:
            from tqdm.auto import tqdm

            bar = tqdm(desc="generator", total=self.settings.steps, initial=self.step, leave=False, mininterval=0.2)
        network.train()
        try:
            small = sum(p.numel() for p in self.parameters) <= _SMALL
            with one_thread(small and not self.parameters[0].is_cuda):
                status = self._loop(callback, bar)
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            if bar is not None:
                bar.close()
        network.eval()
        measured = math.isfinite(self.best)
        if not measured:
            self.kept, self.best_step = self.average, self.step
        self._put(self.kept)
        return FitReport(
            loss=self.optimised,
            status=status,
            steps=self.done,
            best_step=self.best_step,
            held_out=self.best if measured else math.nan,
            pairs=len(pairs.z),
            seconds=self.seconds,
            history=self.history,
        )

    def _loop(self, callback: Callable[[FitState], object] | None, bar: Any) -> str:
        settings = self.settings
        while self.step < settings.steps:
            if self.phase != self.optimised:
                self._put(self.average)
                self._new_phase()
            fraction = self._schedule()
            if fraction >= 1.0:
                if self.phase == self.last:
                    self._measure()
                    return "max_time"
                self.step = settings.squared  # its share of the time is over
                continue
            loss = self._train()
            if not math.isfinite(loss):
                raise RuntimeError(
                    f"The loss is {loss} at step {self.step} of {settings.steps}; lower lr (now {settings.lr:g}), or "
                    "look for outliers in the targets."
                )
            ended = self.step + 1 == self.phase_steps[1]
            measured = (self.step + 1) % settings.every == 0 or ended
            self.total, self.summed, self.done = self.total + loss, self.summed + 1, self.done + 1
            state = self._measure() if measured else None
            self.step += 1
            if bar is not None:
                bar.n = self.step
                bar.update(0)
            if state is not None:
                if bar is not None:
                    bar.set_postfix(
                        {"phase": state.phase, "loss": f"{state.loss:.4g}", "held": f"{state.held_out:.4g}"}
                    )
                if callback is not None and callback(state):
                    return "stopped"
                if self.stale >= settings.patience and self.optimised == self.last:
                    return "early_stop"
            if settings.checkpoint is not None and (self.step % settings.checkpoint_every == 0 or ended):
                self._save()
        return "finished"

    def _new_phase(self) -> None:
        self.optimised = self.phase
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.settings.lr, betas=(0.9, 0.99))
        self.phase_begun = self.seconds
        self.best, self.best_step, self.stale = math.inf, self.step, 0
        self.total, self.summed = 0.0, 0

    def _schedule(self) -> float:
        """Share of the phase that is over, by steps or by time; sets the rate."""
        first, end = self.phase_steps
        fraction = (self.step - first) / (end - first)
        if math.isfinite(self.settings.max_time):
            share = 1.0 if self.phase == self.last else self.settings.squared / self.settings.steps
            left = self.settings.max_time * share - self.phase_begun
            fraction = max(fraction, (self.seconds - self.phase_begun) / left if left > 0.0 else 1.0)
        rise = min(1.0, (self.step - first + 1) / _WARM_STEPS)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * rise * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
        return fraction

    def _train(self) -> float:
        z, index = self.pairs.batch(self.step, self.settings.batch, self.settings.seed)
        if self.phase == "squared":
            loss = self._squared(z, index)
        else:
            loss, self.warm[index] = self._fenchel_young(z, index, self.warm[index], _CONJUGATE_STEPS)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        k = self.step - self.phase_steps[0] + 1
        keep = min(self.settings.averaging, k / (k + 9))
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters, strict=True):
                average.lerp_(parameter, 1.0 - keep)
        return self.units[self.optimised] * loss.item()

    def _squared(self, z: Tensor, index: Tensor) -> Tensor:
        """``mean |G(x) - y_i|^2`` over its unit."""
        error = (self.network(z) - self.pairs.targets[index]) @ self.metric
        return error.square().sum(dim=1).mean()

    def _fenchel_young(self, z: Tensor, index: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """``mean N(z) + N*(t) - <z, t>`` over its unit, and the arguments z* of N* where its derivative is taken."""
        network, t = self.network, self.pairs.targets[index]
        assert isinstance(network, ConvexNetwork)
        star = conjugate(network.value_and_gradient, t, start, iterations).argument
        at, at_star = network.value(torch.cat([z, star])).chunk(2)
        return (at - at_star - ((z - star) * t).sum(dim=1)).mean(), star

    @torch.no_grad()
    def _measure(self) -> FitState:
        """Loss of the averaged weights on held-out targets; keeps the best."""
        held, index = math.nan, self.pairs.held_index
        if len(index):
            current = [p.clone() for p in self.parameters]
            self._put(self.average)
            self.network.eval()
            if self.optimised == "squared":
                loss = self._squared(self.pairs.held_z, index)
            else:
                loss, self.held_warm = self._fenchel_young(self.pairs.held_z, index, self.held_warm, _MEASURE_STEPS)
            held = self.units[self.optimised] * loss.item()
            self.network.train()
            self._put(current)
            if held < self.best:
                self.best, self.best_step, self.stale = held, self.step + 1, 0
                self.kept = [p.clone() for p in self.average]
            else:
                self.stale += 1
        mean = self.total / self.summed if self.summed else math.nan
        self.total, self.summed = 0.0, 0
        state = FitState(self.step + 1, self.settings.steps, self.optimised, mean, held, self.seconds)
        self.history.append({name: value for name, value in asdict(state).items() if name != "steps"})
        return state

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    # ------------------------------------------------------------ continuation

    _NUMBERS = ("step", "done", "best_step", "stale", "best", "total", "summed", "optimised", "history")

    def _identity(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the fit that continues it."""
        settings = {
            k: v for k, v in asdict(self.settings).items() if k not in ("checkpoint", "checkpoint_every", "max_time")
        }
        shapes = [list(p.shape) for p in self.parameters]
        pairs = [
            float(self.pairs.z.double().sum()),
            float(self.pairs.targets.double().sum()),
            int(self.pairs.index.sum()),
        ]
        return {**settings, "network": type(self.network).__name__, "shapes": shapes, "pairs": pairs}

    def _save(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for k in range(len(self.parameters)):
            tensors |= {f"average.{k}": self.average[k], f"kept.{k}": self.kept[k]}
        tensors |= optimizer_tensors("adam", self.optimiser, self.parameters)
        tensors |= {"warm": self.warm, "held_warm": self.held_warm}
        numbers = {name: getattr(self, name) for name in self._NUMBERS}
        times = {"seconds": self.seconds, "phase_begun": self.phase_begun}
        assert self.settings.checkpoint is not None
        io.save(self.settings.checkpoint, "GeneratorFit", {"identity": self._identity(), **numbers, **times}, tensors)

    def _resume(self) -> None:
        path = self.settings.checkpoint
        if path is None or not (Path(path) / io.CONFIG).exists():
            return
        loaded = io.load(path)
        if not isinstance(loaded, Checkpoint) or loaded.config["identity"] != self._identity():
            raise ValueError(
                f"{path} holds something else than a checkpoint of this fit (same potential, source, network and "
                "settings); name another folder, or delete it to start anew."
            )
        config, tensors = loaded.config, loaded.tensors
        for name in self._NUMBERS:
            setattr(self, name, config[name])
        self.best = math.inf if self.best is None else self.best
        self.begun = time.perf_counter() - config["seconds"]
        self.phase_begun = config["phase_begun"]
        device = self.pairs.z.device
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.warm, self.held_warm = tensors["warm"].to(device), tensors["held_warm"].to(device)
        for k in range(len(self.parameters)):
            self.average[k], self.kept[k] = tensors[f"average.{k}"].to(device), tensors[f"kept.{k}"].to(device)
        restore_optimizer("adam", self.optimiser, self.parameters, tensors)


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`otgan.load` makes of a fit's checkpoint."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@io.register("GeneratorFit")
def _load_checkpoint(config: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(config, tensors)
