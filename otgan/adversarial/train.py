"""``train``: one verb for the adversarial baselines."""

from __future__ import annotations

import math
import os
import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan._checks import as_count, as_device, as_fraction, as_positive
from otgan.adversarial._data import as_samples, digest
from otgan.adversarial._random import derived_seed
from otgan.adversarial._training import Limits, Training, TrainingState
from otgan.adversarial.losses import LOSSES
from otgan.adversarial.losses.base import Loss
from otgan.adversarial.model import AdversarialModel, pack_preset
from otgan.adversarial.networks import MLP, DCGANCritic, DCGANGenerator, Output, mixes_points
from otgan.adversarial.presets import PRESETS, Preset
from otgan.measures import Gaussian, Source, UniformBox
from otgan.solvers.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otgan._checks import ArrayLike

_ROUNDING = 1e-3  # by which grey levels may leave their range


def train(
    method: str | Loss,
    data: ArrayLike,
    *,
    preset: str | Preset = "auto",
    source: Source | None = None,
    generator: nn.Module | None = None,
    critic: nn.Module | None = None,
    steps: int | None = None,
    ema: float = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_time: float | None = None,
    progress: bool = False,
    callback: Callable[[TrainingState], object] | None = None,
    observer: Callable[[TrainingState], object] | None = None,
    evaluate_every: int = 100,
    record_every: int = 25,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    **settings: Any,
) -> AdversarialModel:
    r"""Train a generator against a critic, as the method's authors published it.

    One loop serves all: k steps of the critic, each on a fresh minibatch of m data points and m generated ones, then
    one step of the generator (Goodfellow et al. 2014, Algorithm 1, with k = ``critic_steps`` and m = ``batch``). What
    differs is the loss (:mod:`otgan.adversarial.losses`) and the numbers (:data:`PRESETS`). Nothing is scaled:
    published settings expect coordinates of about unit variance, images in [-1, 1] or [0, 1].

    Args:
        method: "gan", "wgan", "wgan-gp", "lsgan", or a loss such as ``GAN(saturating=True)``.
        data: points (n, d), or images (n, channels, height, width).
        preset: "toy" (points), "mnist" (images of 28 x 28 or 32 x 32), "auto" for the one that fits the data, or a
            :class:`Preset` of your own.
        source: law of the noise; the preset's when left out.
        generator: network of your own, noise (m, latent) -> points; trained in place. One without trainable parameters
            stays as it is, and the critic alone is trained.
        critic: network of your own, points -> scores (m,) or (m, 1); trained in place.
        steps: of the generator; the preset's when left out.
        ema: factor of an exponential average of the generator's weights, such as 0.999, which is then what samples; 0
            for none, as published. In step k it is ``min(ema, k / (k + 9))``: the first weights are soon forgotten.
            The average is a network of its own, ``model.generator``, without gradients.
        seed: of weights, noise and shuffling.
        device: where to train; where the data is when left out.
        max_time: seconds after which what there is is returned, with status "max_time".
        progress: show a bar on standard error.
        callback: called with a :class:`TrainingState` after every step; a true return value stops.
        observer: likewise, every ``evaluate_every`` steps, and its time does not count for ``max_time``: it measures
            ``state.model`` while it learns.
        evaluate_every: see above.
        record_every: steps whose mean losses make one row of ``history``; they are also looked at for NaN.
        checkpoint: folder where progress is saved, and where a run of the same data, settings and seed goes on from, to
            the same bits as one that was never interrupted; ``steps`` and ``max_time`` may differ. What layers draw
            themselves, as dropout does, comes from a stream of the run's own, too.
        checkpoint_every: seconds between two saves; there is one more at the end.
        **settings: numbers of the preset or of its loss by name, such as ``lr=2e-4``, ``critic_steps=1``, ``clip=0.1``.

    Returns:
        An :class:`AdversarialModel`. Ctrl-C also ends in one, with status "interrupted". Where a loss or a weight stops
        being finite there is a warning, the status is "diverged", and the networks are those of the last good record.

    Raises:
        ValueError: for an unknown method, preset or setting, bad data, networks whose shapes do not fit the data, or a
            checkpoint of another run.
        TypeError: for arguments of a wrong kind.

    Example:
        >>> data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> train("wgan", data, steps=10, width=16).status
        'finished'
    """
    samples = as_samples(data)
    numbers = _preset(method, preset, tuple(samples.shape[1:]), settings)
    seed, ema = as_count(seed, "seed"), as_fraction(ema, "ema")
    place = as_device(device, samples.device)
    for name, called in (("callback", callback), ("observer", observer)):
        if called is not None and not callable(called):
            raise TypeError(f"{name} must be a function of a TrainingState, got {called!r}.")
    noise = _noise(numbers) if source is None else source
    if not isinstance(noise, Source):
        raise TypeError(f"source must be a measure such as og.Gaussian(2), got {type(noise).__name__}.")
    shape = tuple(samples.shape[1:])
    made = (
        _generator(numbers, noise, samples, derived_seed(seed, "generator")),
        _critic(numbers, shape, derived_seed(seed, "critic")),
    )
    networks = [
        _network(given, make, name).to(place)
        for given, make, name in zip((generator, critic), made, ("generator", "critic"), strict=True)
    ]
    _require_networks(networks[0], networks[1], numbers)
    model = AdversarialModel(numbers, noise, networks[0], networks[1], shape, seed=seed)
    samples = _converted(samples, place, model.dtype)
    _require_fit(model, samples)
    limits = Limits(
        steps=as_count(numbers.steps if steps is None else steps, "steps", 1),
        max_time=math.inf if max_time is None else as_positive(max_time, "max_time"),
        evaluate_every=as_count(evaluate_every, "evaluate_every", 1),
        checkpoint=None,
        progress=progress,
        callback=callback,
        observer=observer,
    )
    training = Training(model, samples, ema, as_count(record_every, "record_every", 1))
    if checkpoint is not None:
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be the path of a folder, got {checkpoint!r}.")
        every = as_positive(checkpoint_every, "checkpoint_every")
        limits = replace(limits, checkpoint=Checkpoint(checkpoint, every, _identity(training, numbers)))
    training.run(limits)
    return model


def _preset(method: str | Loss, preset: str | Preset, shape: tuple[int, ...], settings: dict[str, Any]) -> Preset:
    """The numbers of the run."""
    name = method.name if isinstance(method, Loss) else method
    if isinstance(method, Loss) and name not in LOSSES and not isinstance(preset, Preset):
        raise ValueError(
            f"The loss {type(method).__name__} has no published settings: pass preset=Preset(loss=..., source='...', "
            "optimizer='adam', lr=...)."
        )
    if not isinstance(method, Loss) and (not isinstance(name, str) or name not in LOSSES):
        raise ValueError(f"method must be one of {', '.join(map(repr, LOSSES))}, or a loss, got {method!r}.")
    if isinstance(preset, Preset):
        numbers = preset
        if not isinstance(method, Loss) and numbers.loss.name != name:
            raise ValueError(f"preset has the loss of {numbers.loss.name!r}, but method is {name!r}.")
    else:
        known = PRESETS[name]
        if not isinstance(preset, str) or (preset != "auto" and preset not in known):
            raise ValueError(f"preset must be 'auto', {', '.join(map(repr, known))} or a Preset, got {preset!r}.")
        numbers = known[("toy" if len(shape) == 1 else "mnist") if preset == "auto" else preset]
    if isinstance(method, Loss):
        numbers = replace(numbers, loss=method)
    return numbers.override(settings)


def _noise(numbers: Preset) -> Source:
    """Law of z."""
    if numbers.noise == "gaussian":
        return Gaussian(numbers.latent)
    return UniformBox([-1.0] * numbers.latent, [1.0] * numbers.latent)


def _generator(numbers: Preset, noise: Source, samples: Tensor, seed: int) -> Callable[[], nn.Module]:
    """Makes the preset's generator of points like ``samples``."""
    shape = tuple(samples.shape[1:])

    def make() -> nn.Module:
        if numbers.network == "mlp":
            _require_points(shape, "generator")
            return MLP(noise.dim, shape[0], numbers.width, numbers.depth, seed=seed, **_layers(numbers))
        channels, side = _image(shape, "generator")
        return DCGANGenerator(
            noise.dim, channels, side, numbers.width, norm=numbers.norm, output=_output(samples), seed=seed
        )

    return make


def _critic(numbers: Preset, shape: tuple[int, ...], seed: int) -> Callable[[], nn.Module]:
    """Makes the preset's critic of points of this shape."""

    def make() -> nn.Module:
        if numbers.network == "mlp":
            _require_points(shape, "critic")
            return MLP(shape[0], 1, numbers.width, numbers.critic_depth, scores=True, seed=seed, **_layers(numbers))
        channels, side = _image(shape, "critic")
        return DCGANCritic(channels, side, numbers.width, norm=numbers.critic_norm, seed=seed)

    return make


def _layers(numbers: Preset) -> dict[str, Any]:
    return {"activation": numbers.activation, "gain": numbers.gain}


def _network(given: nn.Module | None, make: Callable[[], nn.Module], name: str) -> nn.Module:
    if given is None:
        with torch.random.fork_rng(devices=[]):  # torch draws weights of its own, which are replaced
            return make()
    if not isinstance(given, nn.Module):
        raise TypeError(f"{name} must be a torch module, got {type(given).__name__}.")
    return given


def _require_points(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 1:
        raise ValueError(
            f"The fully connected {name} makes points (n, d), but the data has shape (n, {', '.join(map(str, shape))})"
            ": flatten it, use preset='mnist', or pass networks of your own."
        )


def _image(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in (28, 32):
        raise ValueError(
            f"The DCGAN {name} makes images (n, channels, 28, 28) or (n, channels, 32, 32), but the data has shape "
            f"(n, {', '.join(map(str, shape))}): use preset='toy' for points, or pass networks of your own."
        )
    return shape[0], shape[1]


def _output(images: Tensor) -> Output:
    """The last layer by the range of the grey levels."""
    low, high = (float(end) for end in torch.aminmax(images))
    if low >= -1.0 - _ROUNDING and high <= 1.0 + _ROUNDING:
        return "tanh" if low < -_ROUNDING else "sigmoid"
    raise ValueError(
        f"Images must have grey levels in [-1, 1] or [0, 1], got {low:g} to {high:g}: scale them (x / 127.5 - 1 for "
        "bytes), or pass a generator of your own."
    )


def _require_networks(generator: nn.Module, critic: nn.Module, numbers: Preset) -> None:
    """Two networks, of one precision, whose critic can be trained by this loss."""
    if generator is critic:
        raise ValueError("generator and critic are the same module; each needs weights of its own.")
    if not any(p.requires_grad for p in critic.parameters()):
        raise ValueError(f"critic, a {type(critic).__name__}, has no parameter to train.")
    kinds = {
        name: {str(p.dtype).removeprefix("torch.") for p in network.parameters()}
        for name, network in (("generator", generator), ("critic", critic))
    }
    if len(kinds["generator"] | kinds["critic"]) > 1 or not kinds["critic"] <= {"float32", "float64"}:
        found = ", ".join(f"{name} is in {' and '.join(sorted(kind))}" for name, kind in kinds.items() if kind)
        raise ValueError(f"Both networks must be in float32, or both in float64; {found}. Convert with .float().")
    if mixes_points(critic):
        if numbers.batch == 1:
            raise ValueError("batch is 1, but the critic normalises over its batch: take more points a step.")
        if type(numbers.loss).penalty is not Loss.penalty:
            warnings.warn(
                f"The critic normalises over its batch, while the penalty of {numbers.loss.name!r} is one of each "
                "point alone (Gulrajani et al. 2017, section 4): use layer normalisation or none.",
                UserWarning,
                stacklevel=3,
            )


def _converted(samples: Tensor, place: torch.device, dtype: torch.dtype) -> Tensor:
    """The data where and in the precision in which it is trained with."""
    found = samples.to(device=place, dtype=dtype)
    size, kept = float(samples.abs().max()), float(found.abs().max())
    if not math.isfinite(kept) or (kept == 0.0 and size > 0.0):
        raise ValueError(
            f"data has coordinates up to {size:g}, which {str(dtype).removeprefix('torch.')} cannot hold: rescale it "
            "to about unit variance."
        )
    return found


@torch.no_grad()
def _require_fit(model: AdversarialModel, data: Tensor) -> None:
    """Both networks take and give what they should."""
    m = 3 if 3 not in model.shape else 5  # a number that no coordinate counts
    x = data[torch.arange(m, device=data.device) % len(data)]
    z = model.source.sample(m, seed=0, device=model.device, dtype=model.dtype)
    made = _called(model.generator, z, "generator", "noise", "Pass source=og.Gaussian(d) with the d that it takes.")
    if tuple(made.shape) != tuple(x.shape):
        raise ValueError(
            f"generator must make points of shape {model.shape} like the data; of m = {m} it makes {tuple(made.shape)}."
        )
    scores = _called(model.network, x, "critic", "points", "Its input must have the shape of the data.")
    if tuple(scores.shape) not in ((m,), (m, 1)):
        raise ValueError(
            f"critic must give one score a point, shape (m,) or (m, 1), got {tuple(scores.shape)} for m = {m}."
        )


def _called(network: nn.Module, x: Tensor, name: str, what: str, advice: str) -> Tensor:
    try:
        out = network.eval()(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} does not take {what} of shape {tuple(x.shape)}: {error}. {advice}") from error
    if not isinstance(out, Tensor):
        raise TypeError(f"{name} must return one tensor, got {type(out).__name__}.")
    return out


def _identity(training: Training, numbers: Preset) -> str:
    """What must agree between a checkpoint and the run that goes on from it."""
    packed = {k: v for k, v in pack_preset(numbers).items() if k not in ("steps", "source")}
    networks = [
        (re.sub(r"0x[0-9a-f]+", "", repr(network)), [tuple(t.shape) for t in network.state_dict().values()])
        for network in (training.generator, training.critic)
    ]
    loss, device = type(numbers.loss).__qualname__, training.batches.data.device.type
    source, tensors = training.model.source.state()
    law = (
        type(training.model.source).__name__,
        sorted(source.items()),
        [t.tolist() for _, t in sorted(tensors.items())],
    )
    return digest(
        training.batches.data, sorted(packed.items()), loss, device, networks, law, training.model.seed, training.ema,
        training.record_every,
    )  # fmt: skip
