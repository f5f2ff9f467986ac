"""What a training run returns: generator, critic and how they came about."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan import io
from otgan._checks import as_count, as_tensor, require_finite
from otgan.adversarial.losses import GAN, LOSSES
from otgan.adversarial.networks import NETWORKS
from otgan.adversarial.presets import Preset
from otgan.measures.saving import pack_source, unpack_source

if TYPE_CHECKING:
    from pathlib import Path

    from otgan._checks import ArrayLike
    from otgan.measures import Source

_BLOCK = 1 << 12
MESSAGES = {
    "finished": "All steps are done.",
    "max_time": "The time is up.",
    "stopped": "A callback asked to stop.",
    "interrupted": "Interrupted; the networks are those of the last step.",
    "running": "The training is not over.",
}


class AdversarialModel:
    """Generator and critic of one adversarial training run.

    Attributes:
        preset: all numbers of the run, with the loss and the place where they are published.
        source: law of the noise z.
        generator: network (m, latent) -> (m, ...); averaged over the steps where the run was asked to.
        network: of the critic, (m, ...) -> scores (m,).
        shape: of one point.
        seed: of the run.
        history: one dictionary for every few steps: step, seconds, critic_loss (with its penalty), generator_loss,
            value (what the critic estimates: V for a GAN, K W1 for a WGAN, W1 for a WGAN-GP, for an LSGAN how much
            better than a constant it is), penalty; means over the generator's steps since the last, of the critic's
            last step before each.
        status: "finished", "max_time", "stopped" (by a callback), "interrupted" or "diverged".
        message: what the status means, and what to do.
        steps: of the generator, done.
        seconds: of training, those of observers left out.

    Example:
        >>> from otgan.adversarial import train
        >>> data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> model = train("wgan-gp", data, steps=5, width=16, seed=0)
        >>> model.sample(3, seed=1).shape, model.critic(data).shape
        (torch.Size([3, 2]), torch.Size([500]))
    """

    def __init__(
        self,
        preset: Preset,
        source: Source,
        generator: nn.Module,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        seed: int = 0,
        history: list[dict[str, float]] | None = None,
        status: str = "running",
        message: str | None = None,
        steps: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.preset, self.source, self.generator, self.network = preset, source, generator, network
        self.shape, self.seed = tuple(shape), seed
        self.history: list[dict[str, float]] = [] if history is None else history
        self.status, self.steps, self.seconds = status, steps, seconds
        self.message = MESSAGES.get(status, "") if message is None else message

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.preset.loss.name

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return next(self.network.parameters()).dtype

    @torch.no_grad()
    def sample(self, n: int, seed: int | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` new points, shape (n, ...); the same for the same seed on one kind of device."""
        z = self.source.sample(as_count(n, "n"), seed=seed, generator=generator, device=self.device, dtype=self.dtype)
        training = self.generator.training
        self.generator.eval()
        try:
            blocks = [self.generator(block) for block in z.split(_BLOCK) if len(block)]
        finally:
            self.generator.train(training)
        return torch.cat(blocks) if blocks else z.new_zeros(0, *self.shape)

    def critic(self, x: ArrayLike) -> Tensor:
        """Scores of points x (m, ...), shape (m,), differentiable: f(x), for a GAN the logit of D(x)."""
        checked = as_tensor(x, "x")
        if tuple(checked.shape[1:]) != self.shape or checked.ndim != len(self.shape) + 1:
            raise ValueError(f"x must have shape (m, {', '.join(map(str, self.shape))}), got {tuple(checked.shape)}.")
        require_finite(checked, "x")
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        training = self.network.training
        self.network.eval()
        try:
            scores: Tensor = self.network(checked.to(device=self.device, dtype=self.dtype))
        finally:
            self.network.train(training)
        return scores.reshape(-1)

    def discriminator(self, x: ArrayLike) -> Tensor:
        """``D(x)``, the probability that x is data, shape (m,); of a GAN only."""
        if not isinstance(self.preset.loss, GAN):
            raise TypeError(f"The critic of a {self.method!r} is no probability; use critic(x) for its scores.")
        return torch.sigmoid(self.critic(x))

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column of ``history``."""
        if self.history and name not in self.history[0]:
            raise ValueError(f"history has {', '.join(self.history[0])}, got {name!r}.")
        return [row["step"] for row in self.history], [row[name] for row in self.history]

    def summary(self) -> str:
        """What ran and how it ended, as a few lines of text."""
        lines = [f"{self.method}: {self.message} ({self.steps:,} steps, {self.seconds:.1f} s)"]
        if self.history:
            last = self.history[-1]
            lines.append(", ".join(f"{name} {last[name]:.4g}" for name in ("critic_loss", "generator_loss", "value")))
        changes = self.preset.changes()
        return "\n".join([*lines, f"settings: {self.preset.source}", *([f"changed: {changes}"] if changes else [])])

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back.

        Raises:
            TypeError: for networks or a loss of the caller's own, which could not be made again.
        """
        loss = type(self.preset.loss)
        if LOSSES.get(self.method) is not loss:
            raise TypeError(
                f"A model with the loss {loss.__name__} cannot be read back and is not saved; known are "
                f"{', '.join(known.__name__ for known in LOSSES.values())}. Keep the networks' state_dict() instead."
            )
        source, tensors = pack_source(self.source)
        config: dict[str, Any] = {
            "preset": pack_preset(self.preset),
            "source": source,
            "shape": list(self.shape),
            "history": self.history,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        config |= {name: getattr(self, name) for name in ("seed", "status", "message", "steps", "seconds")}
        for role, network in (("generator", self.generator), ("network", self.network)):
            name = type(network).__name__
            if NETWORKS.get(name) is not type(network):
                raise TypeError(
                    f"A {name} cannot be read back and is not saved; known are {', '.join(sorted(NETWORKS))}. Keep its "
                    "state_dict() instead."
                )
            config[role] = {"class": name, **NETWORKS[name].config(network)}  # type: ignore[arg-type]
            tensors |= {f"{role}.{key}": t for key, t in network.state_dict().items()}
        return io.save(path, "AdversarialModel", config, tensors)

    def __repr__(self) -> str:
        return f"AdversarialModel({self.method!r}, {self.status}, {self.steps:,} steps)"


def pack_preset(preset: Preset) -> dict[str, Any]:
    """Plain settings; the loss is named."""
    packed = asdict(preset)
    packed["loss"] = {"name": preset.loss.name, **packed["loss"]}
    return packed


def unpack_preset(packed: dict[str, Any]) -> Preset:
    """Inverse of :func:`pack_preset`."""
    inner = dict(packed["loss"])
    loss = LOSSES[inner.pop("name")](**inner)
    return Preset(**{**packed, "loss": loss, "betas": tuple(packed["betas"])})


@io.register("AdversarialModel")
def _load(config: dict[str, Any], tensors: dict[str, Tensor]) -> AdversarialModel:
    networks: dict[str, nn.Module] = {}
    for role in ("generator", "network"):
        settings = dict(config[role])
        network = NETWORKS[settings.pop("class")](**settings).to(getattr(torch, config.get("dtype", "float32")))
        network.load_state_dict({k[len(role) + 1 :]: t for k, t in tensors.items() if k.startswith(f"{role}.")})
        networks[role] = network.eval().requires_grad_(False)
    history = [{k: float("nan") if v is None else v for k, v in row.items()} for row in config["history"]]
    return AdversarialModel(
        unpack_preset(config["preset"]),
        unpack_source(config["source"], tensors),
        networks["generator"],
        networks["network"],
        tuple(config["shape"]),
        history=history,
        **{name: config[name] for name in ("seed", "status", "message", "steps", "seconds")},
    )
