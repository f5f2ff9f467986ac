"""``train``: one verb for the adversarial baselines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan._checks import as_count, as_positive
from otgan.adversarial._data import as_samples, digest
from otgan.adversarial._training import Limits, Training, TrainingState
from otgan.adversarial.losses import LOSSES
from otgan.adversarial.losses.base import Loss
from otgan.adversarial.model import AdversarialModel, pack_preset
from otgan.adversarial.networks import MLP, DCGANCritic, DCGANGenerator, Output
from otgan.adversarial.presets import PRESETS, Preset
from otgan.measures import Gaussian, Source, UniformBox
from otgan.solvers.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otgan._checks import ArrayLike


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
            for none, as published.
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
            the same bits as one that was never interrupted; ``steps`` and ``max_time`` may differ.
        checkpoint_every: seconds between two saves; there is one more at the end.
        **settings: numbers of the preset or of its loss by name, such as ``lr=2e-4``, ``critic_steps=1``, ``clip=0.1``.

    Returns:
        An :class:`AdversarialModel`. Ctrl-C also ends in one, with status "interrupted". Where a loss or a weight stops
        being finite there is a warning, the status is "diverged", and the networks are those of the last good record.

    Raises:
        ValueError: for an unknown method, preset or setting, bad data, or networks whose shapes do not fit the data.

    Example:
        >>> data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> train("wgan", data, steps=10, width=16).status
        'finished'
    """
    samples = as_samples(data)
    numbers = _preset(method, preset, tuple(samples.shape[1:]), settings)
    seed = as_count(seed, "seed")
    if not 0.0 <= float(ema) < 1.0:
        raise ValueError(f"ema must be in [0, 1), got {ema!r}; 0 is no average.")
    place = samples.device if device is None else torch.device(device)
    noise = _noise(numbers) if source is None else source
    if not isinstance(noise, Source):
        raise TypeError(f"source must be a measure such as og.Gaussian(2), got {type(noise).__name__}.")
    shape = tuple(samples.shape[1:])
    made = (_generator(numbers, noise, samples, seed), _critic(numbers, shape, seed + 1))
    networks = [
        _network(given, make, name).to(place)
        for given, make, name in zip((generator, critic), made, ("generator", "critic"), strict=True)
    ]
    if not any(p.requires_grad for p in networks[1].parameters()):
        raise ValueError(f"critic, a {type(networks[1]).__name__}, has no parameter to train.")
    model = AdversarialModel(numbers, noise, networks[0], networks[1], shape, seed=seed)
    _require_fit(model, samples[:2].to(place))
    limits = Limits(
        steps=as_count(numbers.steps if steps is None else steps, "steps", 1),
        max_time=math.inf if max_time is None else as_positive(max_time, "max_time"),
        evaluate_every=as_count(evaluate_every, "evaluate_every", 1),
        checkpoint=None,
        progress=progress,
        callback=callback,
        observer=observer,
    )
    training = Training(
        model, samples.to(device=place, dtype=model.dtype), float(ema), as_count(record_every, "record_every", 1)
    )
    if checkpoint is not None:
        every = as_positive(checkpoint_every, "checkpoint_every")
        limits = Limits(**{**vars(limits), "checkpoint": Checkpoint(checkpoint, every, _identity(training, numbers))})
    training.run(limits)
    return model


def _preset(method: str | Loss, preset: str | Preset, shape: tuple[int, ...], settings: dict[str, Any]) -> Preset:
    """The numbers of the run."""
    name = method.name if isinstance(method, Loss) else method
    if name not in LOSSES and not (isinstance(method, Loss) and isinstance(preset, Preset)):
        raise ValueError(f"method must be one of {', '.join(map(repr, LOSSES))}, got {method!r}.")
    if isinstance(preset, Preset):
        numbers = preset
        if not isinstance(method, Loss) and numbers.loss.name != name:
            raise ValueError(f"preset has the loss of {numbers.loss.name!r}, but method is {name!r}.")
    else:
        known = PRESETS[name]
        if preset != "auto" and preset not in known:
            raise ValueError(f"preset must be 'auto', {', '.join(map(repr, known))} or a Preset, got {preset!r}.")
        numbers = known[("toy" if len(shape) == 1 else "mnist") if preset == "auto" else preset]
    if isinstance(method, Loss):
        numbers = Preset(**{**vars(numbers), "loss": method})
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
            return MLP(noise.dim, shape[0], numbers.width, numbers.depth, seed=seed)
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
            return MLP(shape[0], 1, numbers.width, numbers.critic_depth, scores=True, seed=seed)
        channels, side = _image(shape, "critic")
        return DCGANCritic(channels, side, numbers.width, norm=numbers.critic_norm, seed=seed)

    return make


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
    if low >= -1.0 and high <= 1.0:
        return "tanh" if low < 0.0 else "sigmoid"
    raise ValueError(
        f"Images must have grey levels in [-1, 1] or [0, 1], got {low:g} to {high:g}: scale them (x / 127.5 - 1 for "
        "bytes), or pass a generator of your own."
    )


@torch.no_grad()
def _require_fit(model: AdversarialModel, x: Tensor) -> None:
    """Both networks take and give what they should."""
    dim, expected = model.source.dim, (2, *model.shape)
    try:
        made = model.sample(2, seed=0)
    except RuntimeError as error:
        raise ValueError(
            f"generator does not take noise of shape (2, {dim}): {error}. Pass source=og.Gaussian(d) with the d "
            "that it takes."
        ) from error
    if tuple(made.shape) != expected:
        raise ValueError(
            f"generator makes points of shape {tuple(made.shape[1:])}, the data has points of shape {model.shape}."
        )
    try:
        scores = model.network.eval()(x.to(model.dtype))
    except RuntimeError as error:
        raise ValueError(f"critic does not take points of shape {expected}: {error}.") from error
    if tuple(scores.shape) not in ((2,), (2, 1)):
        raise ValueError(
            f"critic must give one score a point, shape (m,) or (m, 1), got {tuple(scores.shape)} for m = 2."
        )


def _identity(training: Training, numbers: Preset) -> str:
    """What must agree between a checkpoint and the run that goes on from it."""
    packed = {k: v for k, v in pack_preset(numbers).items() if k not in ("steps", "source")}
    networks = [
        (type(network).__name__, [tuple(p.shape) for p in network.parameters()])
        for network in (training.generator, training.critic)
    ]
    source, tensors = training.model.source.state()
    law = (
        type(training.model.source).__name__,
        sorted(source.items()),
        [t.tolist() for _, t in sorted(tensors.items())],
    )
    return digest(
        training.batches.data, sorted(packed.items()), networks, law, training.model.seed, training.ema,
        training.record_every,
    )  # fmt: skip
