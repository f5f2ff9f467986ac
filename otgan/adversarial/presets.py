"""The published settings of each method, with the place where they are published."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from otgan._checks import as_count, as_fraction, as_positive
from otgan.adversarial.losses import GAN, LOSSES, LSGAN, WGAN, WGANGP
from otgan.adversarial.losses.base import Loss
from otgan.adversarial.networks import Activation, Norm

Optimizer = Literal["adam", "rmsprop", "sgd"]


@dataclass(frozen=True)
class Preset:
    """All numbers of one training run.

    Attributes:
        loss: the two objectives, with their own constants.
        source: where the numbers are published.
        optimizer: "adam", "rmsprop" or "sgd", one for each network.
        lr: of the generator.
        critic_lr: of the critic; that of the generator when None.
        betas: of Adam.
        decay: of RMSProp's mean of squares.
        momentum: of "sgd".
        critic_steps: k, steps of the critic a step of the generator.
        batch: m, points a step.
        steps: of the generator.
        latent: dimension of the noise.
        noise: "gaussian", N(0, I), or "uniform" on [-1, 1]^latent.
        network: "mlp" for points, "dcgan" for images of 28 x 28 or 32 x 32.
        width: units of a hidden layer of both networks, or channels of the convolutions nearest to the image.
        depth: hidden layers of the generator ("mlp").
        critic_depth: hidden layers of the critic ("mlp").
        activation: of hidden layers, "relu" or "tanh" ("mlp").
        gain: of orthogonal weights at the start ("mlp"); He's where it is None.
        norm: of the generator ("dcgan").
        critic_norm: of the critic ("dcgan").
    """

    loss: Loss
    source: str
    optimizer: Optimizer
    lr: float
    critic_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.99
    momentum: float = 0.0
    critic_steps: int = 1
    batch: int = 64
    steps: int = 100_000
    latent: int = 2
    noise: Literal["gaussian", "uniform"] = "gaussian"
    network: Literal["mlp", "dcgan"] = "mlp"
    width: int = 512
    depth: int = 3
    critic_depth: int = 3
    activation: Activation = "relu"
    gain: float | None = None
    norm: Norm = "batch"
    critic_norm: Norm = "batch"

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss) or not is_dataclass(self.loss):
            raise TypeError(
                f"loss must be one of {tuple(LOSSES)} as an object, such as WGAN(), or a dataclass of your own that "
                f"derives from Loss, got {self.loss!r}."
            )
        # Plain numbers, whatever kind they came as: a run is recognised by them.
        checked: dict[str, Any] = {
            name: as_count(getattr(self, name), name, 1)
            for name in ("critic_steps", "batch", "steps", "latent", "width", "depth", "critic_depth")
        }
        for name in ("lr", "critic_lr", "gain"):
            value = getattr(self, name)
            checked[name] = None if value is None and name != "lr" else as_positive(value, name)
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}.")
        checked["betas"] = tuple(as_fraction(beta, "betas") for beta in self.betas)
        checked |= {name: as_fraction(getattr(self, name), name) for name in ("decay", "momentum")}
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def override(self, settings: dict[str, Any]) -> Preset:
        """This preset with other numbers; those of the loss are named as they are there."""
        own = {f.name for f in fields(self)} - {"loss", "source"}
        inner = {f.name for f in fields(self.loss)}  # type: ignore[arg-type]  # every loss is a dataclass
        unknown = sorted(set(settings) - own - inner)
        if unknown:
            raise ValueError(
                f"{self.loss.name!r} has no setting {', '.join(unknown)}; it knows {', '.join(sorted(own | inner))}."
            )
        changed = {name: value for name, value in settings.items() if name in inner}
        loss = replace(self.loss, **changed)  # type: ignore[type-var]
        made = replace(self, loss=loss, **{n: v for n, v in settings.items() if n in own})
        for name, (field, needed) in _ONLY.items():
            if name in settings and getattr(made, field) != needed:
                raise ValueError(
                    f"{name} is for {field}={needed!r} and would change nothing: {field} is {getattr(made, field)!r}."
                )
        return made

    def changes(self) -> str:
        """What differs from the published settings of this source, as text; empty if nothing does."""
        published = next((p for p in PRESETS.get(self.loss.name, {}).values() if p.source == self.source), None)
        if published is None:
            return ""
        pairs = [(f.name, getattr(self, f.name), getattr(published, f.name)) for f in fields(self) if f.name != "loss"]
        if type(self.loss) is type(published.loss):
            pairs += [(n, v, vars(published.loss)[n]) for n, v in vars(self.loss).items()]
        return ", ".join(f"{name} {now!r} (published {then!r})" for name, now, then in pairs if now != then)


_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adam", "rmsprop", "sgd"),
    "noise": ("gaussian", "uniform"),
    "network": ("mlp", "dcgan"),
    "activation": ("relu", "tanh"),
    "norm": ("none", "batch", "layer"),
    "critic_norm": ("none", "batch", "layer"),
}
_ONLY = {
    "betas": ("optimizer", "adam"),
    "decay": ("optimizer", "rmsprop"),
    "momentum": ("optimizer", "sgd"),
    **{name: ("network", "mlp") for name in ("depth", "critic_depth", "activation", "gain")},
    **{name: ("network", "dcgan") for name in ("norm", "critic_norm")},
}
"""Settings that only one kind of optimizer or network has."""

_METZ = Preset(
    loss=GAN(saturating=True),
    source="Metz, Poole, Pfau, Sohl-Dickstein, 'Unrolled generative adversarial networks' (ICLR 2017), the authors' "
    "published code for the ring of 8 Gaussians, without unrolling: Goodfellow et al. (2014), Algorithm 1 with k = 1",
    optimizer="adam",
    lr=1e-3,
    critic_lr=1e-4,
    betas=(0.5, 0.999),
    batch=512,
    steps=25_000,
    latent=256,
    width=128,
    depth=2,
    critic_depth=2,
    activation="tanh",
    gain=1.4,
)
_RADFORD = Preset(
    loss=GAN(),
    source="Radford, Metz, Chintala, 'DCGAN' (ICLR 2016), section 4; 100 epochs of 60,000 digits",
    optimizer="adam",
    lr=2e-4,
    betas=(0.5, 0.999),
    batch=128,
    steps=46_900,
    latent=100,
    noise="uniform",
    network="dcgan",
    width=64,
)
_ARJOVSKY = Preset(
    loss=WGAN(clip=0.01),
    source="Arjovsky, Chintala, Bottou, 'Wasserstein GAN' (2017), Algorithm 1; networks and steps of Gulrajani et al. "
    "(2017), 2-D experiments",
    optimizer="rmsprop",
    lr=5e-5,
    critic_steps=5,
    batch=64,
    steps=100_000,
)
_GULRAJANI = Preset(
    loss=WGANGP(penalty_weight=0.1),
    source="Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, 'Improved training of Wasserstein GANs' (2017), 2-D "
    "experiments and their published code",
    optimizer="adam",
    lr=1e-4,
    betas=(0.5, 0.9),
    critic_steps=5,
    batch=256,
    steps=100_000,
)

PRESETS: dict[str, dict[str, Preset]] = {
    "gan": {"toy": _METZ, "mnist": _RADFORD},
    "wgan": {
        "toy": _ARJOVSKY,
        "mnist": replace(
            _ARJOVSKY,
            source="Arjovsky, Chintala, Bottou (2017), Algorithm 1 with a DCGAN; noise and steps of Gulrajani et al. "
            "(2017) for MNIST",
            network="dcgan",
            width=64,
            latent=128,
            steps=200_000,
        ),
    },
    "wgan-gp": {
        "toy": _GULRAJANI,
        "mnist": replace(
            _GULRAJANI,
            loss=WGANGP(penalty_weight=10.0),
            source="Gulrajani et al. (2017), Algorithm 1; noise, width and steps of their code for MNIST, but batch "
            "normalisation in the generator as in DCGAN, and 64 points a step",
            betas=(0.0, 0.9),
            batch=64,
            steps=200_000,
            latent=128,
            network="dcgan",
            width=64,
            critic_norm="none",
        ),
    },
    "lsgan": {
        "toy": replace(
            _METZ,
            loss=LSGAN(),
            source="Mao et al., 'Least squares GANs' (ICCV 2017): three layers in both networks, ReLU here; the "
            "numbers that it leaves open are those of Metz et al. (2017)",
            activation="relu",
            gain=None,
        ),
        "mnist": replace(
            _RADFORD,
            loss=LSGAN(),
            source="Mao et al. (ICCV 2017), labels 0, 1, 1, with a DCGAN; RMSProp 1e-4 of the comparison in Gulrajani "
            "et al. (2017)",
            optimizer="rmsprop",
            lr=1e-4,
            decay=0.9,
        ),
    },
}
"""Settings by method and by the kind of data: "toy" for points, "mnist" for small images."""
