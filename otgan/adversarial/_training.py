"""The loop that all adversarial methods share: k steps of the critic, one of the generator."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan._interrupts import interrupts_held
from otgan._optimizers import optimizer_tensors, restore_optimizer
from otgan._threads import one_thread
from otgan.adversarial._data import Batches
from otgan.adversarial._random import PrivateRandom, derived_seed
from otgan.adversarial.model import MESSAGES
from otgan.adversarial.networks import NETWORKS, mixes_points

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from otgan.adversarial.model import AdversarialModel
    from otgan.adversarial.presets import Preset
    from otgan.solvers.checkpoint import Checkpoint

_SMALL = 1 << 18  # parameters of both networks up to which one thread is best
_LOOK = 100  # steps after which weights are looked at for NaN, where rows are longer
_COLUMNS = ("critic_loss", "generator_loss", "value", "penalty")


@dataclass(frozen=True)
class TrainingState:
    """One moment of a training run, handed to callbacks and observers.

    Attributes:
        method: name of the method.
        step: generator steps done.
        steps: planned.
        seconds: of training so far; the time that observers took is left out.
        critic_loss: mean over the last record; NaN before the first.
        generator_loss: likewise.
        value: likewise; see :attr:`AdversarialModel.history`.
        model: what would be returned now; it goes on changing.
    """

    method: str
    step: int
    steps: int
    seconds: float
    critic_loss: float
    generator_loss: float
    value: float
    model: AdversarialModel


@dataclass(frozen=True)
class Limits:
    """When a run ends, and what it tells on the way; none of this changes the numbers.

    Attributes:
        steps: of the generator.
        max_time: seconds of this run, or inf.
        evaluate_every: steps between two calls of the observer.
        checkpoint: where progress is saved, if anywhere.
        progress: whether a bar is shown.
        callback: called after every step.
        observer: called every ``evaluate_every`` steps, off the clock.
    """

    steps: int
    max_time: float
    evaluate_every: int
    checkpoint: Checkpoint | None
    progress: bool
    callback: Callable[[TrainingState], object] | None
    observer: Callable[[TrainingState], object] | None


class Training:
    """State of one run.

    Args:
        model: holds the networks, which are trained in place; its generator may become the average of the trained one.
        data: (n, ...), on the device and in the precision of the networks.
        ema: factor of the generator's exponential average; 0 for none.
        record_every: steps whose means make one row of the history.
    """

    def __init__(self, model: AdversarialModel, data: Tensor, ema: float, record_every: int) -> None:
        self.model, self.preset, self.loss = model, model.preset, model.preset.loss
        self.ema, self.record_every = ema, record_every
        self.generator, self.critic = model.generator, model.network
        self.parameters = [p for p in self.generator.parameters() if p.requires_grad]
        self.critic_parameters = [p for p in self.critic.parameters() if p.requires_grad]
        rates = (self.preset.lr, self.preset.critic_lr or self.preset.lr)
        self.optimiser = _optimiser(self.preset, self.parameters, rates[0]) if self.parameters else None
        self.critic_optimiser = _optimiser(self.preset, self.critic_parameters, rates[1])
        if ema:
            model.generator = deepcopy(self.generator).requires_grad_(False).eval()
        self.batches = Batches(data, self.preset.batch, derived_seed(model.seed, "batches"))
        self.stream = torch.Generator(device=data.device).manual_seed(derived_seed(model.seed, "noise"))
        self.random = PrivateRandom(derived_seed(model.seed, "layers"), data.device)
        # A critic of the caller's may look at its batch as a whole: only ours are known not to.
        self.together = type(self.critic) in NETWORKS.values() and not mixes_points(self.critic)
        self.step = self.drawn = 0
        self.pending: list[Tensor] = []  # losses of the steps since the last row
        self.earlier, self.begun, self.whole = 0.0, time.perf_counter(), True
        self.good = _clones(self._networks())
        self.good_step = 0

    # ------------------------------------------------------------------ loop

    def run(self, limits: Limits) -> None:
        """Train until a limit is reached; the model says how it ended."""
        self.limits, saving = limits, limits.checkpoint
        found = None if saving is None else saving.load()
        if found is not None:
            self._restore(*found)
        bar = None
        if limits.progress:
            from tqdm.auto import tqdm

            bar = tqdm(
                desc=self.model.method, total=limits.steps, initial=self.step, unit="it", leave=False, mininterval=0.2
            )
        size = sum(p.numel() for p in (*self.parameters, *self.critic_parameters))
        self.generator.train()
        self.critic.train()
        self.begun = time.perf_counter()
        try:
            with one_thread(size <= _SMALL and self.batches.data.device.type == "cpu"):
                status = self._loop(bar)
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            if bar is not None:
                bar.close()
            for network in (self.model.generator, self.generator, self.critic):
                network.eval()
                for parameter in network.parameters():
                    parameter.grad = None
        last = self._row() if self.pending else None
        finite = status != "diverged" and (last is not None if self.pending else self._finite())
        if saving is not None and self.whole and finite:
            self._save(saving)
        if last is not None:  # not saved: a run that goes on has whole rows, as one that was never cut
            self.model.history.append(last)
        self._end(status, finite)

    def _loop(self, bar: Any) -> str:
        limits = self.limits
        if self.step >= limits.steps:
            return "finished"
        while self.step < limits.steps:
            if self.seconds - self.earlier >= limits.max_time:
                return "max_time"
            with interrupts_held():
                with self.random.used():
                    self._step()
                recorded = self.step % self.record_every == 0
                good = self._record() if recorded else self.step % _LOOK != 0 or self._finite()
            if not good:
                return "diverged"
            if bar is not None and recorded:
                bar.n = self.step
                row = self.model.history[-1]
                bar.set_postfix({name: f"{row[name]:.3g}" for name in _COLUMNS[:3]}, refresh=False)
                bar.update(0)
            if limits.observer is not None and self.step % limits.evaluate_every == 0:
                begun = time.perf_counter()
                asked = limits.observer(self._state())
                self.begun += time.perf_counter() - begun
                if asked:
                    return "stopped"
            if limits.callback is not None and limits.callback(self._state()):
                return "stopped"
            if recorded and limits.checkpoint is not None and limits.checkpoint.due():
                self._save(limits.checkpoint)
        return "finished"

    def _step(self) -> None:
        self.whole = False
        for _ in range(self.preset.critic_steps):
            losses = self._critic_step()
        losses.append(self._generator_step())
        self.pending.append(torch.stack(losses))
        self.step += 1
        self.whole = True

    def _critic_step(self) -> list[Tensor]:
        """One step of the critic; its loss without the penalty, and the penalty."""
        real = self.batches[self.drawn]
        self.drawn += 1
        with torch.no_grad():
            fake = self.generator(self._noise())
        if self.together:
            scores = self.critic(torch.cat([real, fake])).reshape(-1)
            of_real, of_fake = scores[: len(real)], scores[len(real) :]
        else:
            of_real, of_fake = self.critic(real).reshape(-1), self.critic(fake).reshape(-1)
        loss = self.loss.critic_loss(of_real, of_fake)
        penalty = self.loss.penalty(self.critic, real, fake, self.stream)
        _descend(loss if penalty is None else loss + penalty, self.critic_parameters, self.critic_optimiser)
        self.loss.constrain(self.critic_parameters)
        return [loss.detach(), torch.zeros_like(loss) if penalty is None else penalty.detach()]

    def _generator_step(self) -> Tensor:
        """One step of the generator, if it can learn; its loss."""
        if self.optimiser is None:
            return torch.full((), math.nan, device=self.stream.device, dtype=self.batches.data.dtype)
        loss = self.loss.generator_loss(self.critic(self.generator(self._noise())).reshape(-1))
        # Gradients are taken for the generator's parameters alone: those of the critic would be thrown away.
        _descend(loss, self.parameters, self.optimiser)
        if self.ema:
            self._average()
        return loss.detach()

    def _noise(self) -> Tensor:
        return self.model.source.sample(
            self.preset.batch, generator=self.stream, device=self.stream.device, dtype=self.batches.data.dtype
        )

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.ema, (self.step + 1) / (self.step + 10))
        averaged = self.model.generator
        for mean, now in zip(averaged.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(now, 1.0 - keep)
        for held, found in zip(averaged.buffers(), self.generator.buffers(), strict=True):
            held.copy_(found)

    # ----------------------------------------------------------- what is told

    @property
    def seconds(self) -> float:
        """Of training, those of earlier runs included."""
        return self.earlier + time.perf_counter() - self.begun

    def _state(self) -> TrainingState:
        self.model.steps, self.model.seconds = self.step, self.seconds
        row = self.model.history[-1] if self.model.history else {}
        critic, generator, value = (row.get(name, math.nan) for name in _COLUMNS[:3])
        return TrainingState(
            self.model.method, self.step, self.limits.steps, self.seconds, critic, generator, value, self.model
        )

    def _record(self) -> bool:
        """One row of the history; False, and no row, where a loss or a weight is no longer finite."""
        row = self._row()
        self.pending.clear()
        if row is None:
            return False
        self.model.history.append(row)
        for kept, now in zip(self.good, self._networks(), strict=True):
            kept.copy_(now)
        self.good_step = self.step
        return True

    def _row(self) -> dict[str, float] | None:
        """Means over the steps since the last row; None where a loss or a weight is no longer finite."""
        losses, penalty, generator = torch.stack(self.pending).double().mean(dim=0).tolist()
        known = math.isfinite(losses + penalty) and (self.optimiser is None or math.isfinite(generator))
        if not known or not self._finite():
            return None
        numbers = (losses + penalty, generator, self.loss.value(losses), penalty)
        return {"step": self.step, "seconds": self.seconds, **dict(zip(_COLUMNS, numbers, strict=True))}

    def _networks(self) -> list[Tensor]:
        """Weights and buffers of the trained networks, and of the average."""
        networks = [self.generator, self.critic] + ([self.model.generator] if self.ema else [])
        return [t.detach() for network in networks for t in (*network.parameters(), *network.buffers())]

    def _finite(self) -> bool:
        sums = [t.detach().sum().double() for t in (*self.parameters, *self.critic_parameters)]
        return math.isfinite(float(torch.stack(sums).sum()))

    def _end(self, status: str, finite: bool) -> None:
        """Tell the model how it ended, with the last good weights if the present ones are not finite."""
        model, lost = self.model, self.step
        if not finite:
            status = "diverged"
            for kept, now in zip(self.good, self._networks(), strict=True):
                now.copy_(kept)
            self.step = self.good_step
        model.status, model.steps, model.seconds = status, self.step, self.seconds
        model.message = MESSAGES.get(status, "")
        if not finite:
            model.message = (
                f"A loss or a weight was NaN or infinite after step {lost}; the networks are those of step "
                f"{self.good_step}. Lower lr (now {self.preset.lr:g}), or rescale the data to about unit size."
            )
            warnings.warn(f"{model.method}: {model.message}", RuntimeWarning, stacklevel=4)

    # ------------------------------------------------------------ continuation

    def _save(self, saving: Checkpoint) -> None:
        tensors = {"stream": self.stream.get_state()}
        tensors |= {f"random.{k}": state for k, state in enumerate(self.random.states)}
        for name, network in self._saved_networks():
            tensors |= {f"{name}.{key}": t for key, t in network.state_dict().items()}
        for name, optimiser, parameters in self._optimisers():
            tensors |= optimizer_tensors(name, optimiser, parameters)
        if self.pending:
            tensors["pending"] = torch.stack(self.pending)
        state = {"step": self.step, "drawn": self.drawn, "seconds": self.seconds, "history": self.model.history}
        arrays: dict[str, np.ndarray] = {name: t.detach().cpu().numpy() for name, t in tensors.items()}
        saving.save(state, arrays)

    def _restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        device = self.stream.device
        self.stream.set_state(tensors["stream"])
        self.random.states = [tensors[f"random.{k}"] for k in range(len(self.random.states))]
        for name, network in self._saved_networks():
            network.load_state_dict(_under(tensors, f"{name}."))
        for name, optimiser, parameters in self._optimisers():
            restore_optimizer(name, optimiser, parameters, tensors)
        self.pending = list(tensors["pending"].to(device)) if "pending" in tensors else []
        self.step, self.drawn, self.earlier = state["step"], state["drawn"], state["seconds"]
        rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in state["history"]]
        self.model.history[:] = rows
        self.good, self.good_step = _clones(self._networks()), self.step

    def _saved_networks(self) -> list[tuple[str, nn.Module]]:
        averaged = [("average", self.model.generator)] if self.ema else []
        return [("generator", self.generator), ("critic", self.critic), *averaged]

    def _optimisers(self) -> list[tuple[str, torch.optim.Optimizer, list[nn.Parameter]]]:
        found = [("critic_optimiser", self.critic_optimiser, self.critic_parameters)]
        if self.optimiser is not None:
            found.append(("optimiser", self.optimiser, self.parameters))
        return found


def _descend(loss: Tensor, parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()


def _optimiser(preset: Preset, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    if preset.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=preset.momentum)
    if preset.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, alpha=preset.decay, foreach=True)
    with contextlib.suppress(RuntimeError):  # a device or precision without the fused kernel
        return torch.optim.Adam(parameters, lr=lr, betas=preset.betas, fused=True)
    return torch.optim.Adam(parameters, lr=lr, betas=preset.betas)


def _clones(tensors: list[Tensor]) -> list[Tensor]:
    return [t.clone() for t in tensors]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
