"""The networks of the published baselines: fully connected for points, DCGAN for small images."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from otgan._checks import as_count, as_positive

Norm = Literal["none", "batch", "layer"]
Output = Literal["linear", "tanh", "sigmoid"]
Activation = Literal["relu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
_NORMS, _OUTPUTS = ("none", "batch", "layer"), ("linear", "tanh", "sigmoid")
_SIDES = (28, 32)


class MLP(nn.Module):
    """Layers ``h -> s(W h + b)``, all of one width, then a linear one: (m, inputs) -> (m, outputs), or (m,) of scores.

    Weights start as He's normal ones (variance 2 over the inputs of a layer, 1 for the last), or as random matrices
    with orthonormal rows or columns times ``gain``; biases at 0.

    Args:
        inputs: dimension of a point or of the noise.
        outputs: dimension of what comes out.
        width: units of a hidden layer.
        depth: hidden layers.
        scores: whether one output is a score of a critic, shape (m,), or a coordinate, shape (m, 1).
        activation: s, "relu" or "tanh".
        gain: of orthogonal weights; He's are drawn where it is None.
        seed: of the initial weights.

    Source:
        Gulrajani et al. (2017), 2-D experiments: 3 hidden layers of 512 ReLU units in both networks. Orthogonal
        weights: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks" (ICLR 2014).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 512,
        depth: int = 3,
        *,
        scores: bool = False,
        activation: Activation = "relu",
        gain: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = as_count(inputs, "inputs", 1), as_count(outputs, "outputs", 1)
        self.width, self.depth, self.scores = as_count(width, "width", 1), as_count(depth, "depth", 1), bool(scores)
        if self.scores and self.outputs != 1:
            raise ValueError(f"A critic has 1 output, got outputs={outputs}.")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {tuple(_ACTIVATIONS)}, got {activation!r}.")
        self.activation, self.gain = activation, None if gain is None else as_positive(gain, "gain")
        layers: list[nn.Module] = []
        for k in range(self.depth):
            layers += [nn.Linear(self.inputs if k == 0 else self.width, self.width), _ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(self.width, self.outputs))
        if self.gain is None:
            _start(self, seed, None)
        else:
            _start_orthogonal(self, seed, self.gain)

    def config(self) -> dict[str, Any]:
        """Arguments from which an equal network is made."""
        names = ("inputs", "outputs", "width", "depth", "scores", "activation", "gain")
        return {name: getattr(self, name) for name in names}

    def forward(self, z: Tensor) -> Tensor:
        """Points (m, outputs), or scores (m,)."""
        out: Tensor = self.layers(z)
        return out.squeeze(1) if self.scores else out


class DCGANGenerator(nn.Module):
    """Noise (m, latent) to images (m, channels, side, side), by three transposed convolutions of 5 x 5, stride 2.

    ``4w x 4 x 4 -> 2w x 8 x 8 -> w x 16 x 16 -> channels x 32 x 32`` with ReLU between; for 28 x 28 the second is cut
    to 7 x 7.

    Args:
        latent: dimension of the noise.
        channels: 1 or 3 (any number works).
        side: 28 or 32.
        width: w.
        norm: "batch" (DCGAN), "layer" or "none", after each layer but the last.
        output: "tanh" for grey levels in [-1, 1] (DCGAN), "sigmoid" for [0, 1], or "linear".
        seed: of the initial weights.

    Source:
        Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional GANs" (ICLR 2016);
        three layers instead of four because the images are smaller, as Gulrajani et al. (2017) for MNIST.
    """

    def __init__(
        self,
        latent: int = 100,
        channels: int = 1,
        side: int = 28,
        width: int = 64,
        *,
        norm: Norm = "batch",
        output: Output = "tanh",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.channels, self.width = _images(latent, channels, width, side, norm)
        self.side, self.norm, self.output = side, norm, output
        if output not in _OUTPUTS:
            raise ValueError(f"output must be one of {_OUTPUTS}, got {output!r}.")
        w = self.width
        self.inlet = nn.Linear(self.latent, 4 * w * 16, bias=norm == "none")
        self.first = nn.Sequential(_normed(norm, 4 * w, 4), nn.ReLU())
        self.second = nn.Sequential(_up(4 * w, 2 * w, norm), _normed(norm, 2 * w, 8), nn.ReLU())
        middle = side // 4
        self.third = nn.Sequential(_up(2 * w, w, norm), _normed(norm, w, 2 * middle), nn.ReLU())
        self.outlet = _up(w, self.channels, "none")
        _start(self, seed, None if norm == "none" else 0.02)

    def config(self) -> dict[str, Any]:
        """Arguments from which an equal network is made."""
        return {name: getattr(self, name) for name in ("latent", "channels", "side", "width", "norm", "output")}

    def forward(self, z: Tensor) -> Tensor:
        """Images, shape (m, channels, side, side)."""
        h = self.first(self.inlet(z).view(len(z), -1, 4, 4))
        h = self.second(h)[:, :, : self.side // 4, : self.side // 4]
        out: Tensor = self.outlet(self.third(h))
        if self.output == "tanh":
            return out.tanh()
        return out.sigmoid() if self.output == "sigmoid" else out


class DCGANCritic(nn.Module):
    """Images (m, channels, side, side) to scores (m,), by three convolutions of 5 x 5, stride 2, leaky ReLU (0.2).

    Args:
        channels: of the images.
        side: 28 or 32.
        width: channels of the first layer; then twice, then four times as many.
        norm: "batch" (DCGAN), "layer" or "none", after the second and third. A gradient penalty is one of each point,
            which batch normalisation mixes: Gulrajani et al. use none, or layer normalisation.
        seed: of the initial weights.

    Source:
        Radford, Metz, Chintala (2016), as for :class:`DCGANGenerator`.
    """

    def __init__(
        self, channels: int = 1, side: int = 28, width: int = 64, *, norm: Norm = "batch", seed: int = 0
    ) -> None:
        super().__init__()
        _, self.channels, self.width = _images(1, channels, width, side, norm)
        self.side, self.norm = side, norm
        w, half = self.width, side // 2
        self.layers = nn.Sequential(
            nn.Conv2d(self.channels, w, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 5, stride=2, padding=2, bias=norm == "none"),
            _normed(norm, 2 * w, half // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 4 * w, 5, stride=2, padding=2, bias=norm == "none"),
            _normed(norm, 4 * w, 4),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * w * 16, 1),
        )
        _start(self, seed, None if norm == "none" else 0.02)

    def config(self) -> dict[str, Any]:
        """Arguments from which an equal network is made."""
        return {name: getattr(self, name) for name in ("channels", "side", "width", "norm")}

    def forward(self, x: Tensor) -> Tensor:
        """Scores, shape (m,)."""
        out: Tensor = self.layers(x)
        return out.squeeze(1)


NETWORKS: dict[str, type[MLP] | type[DCGANGenerator] | type[DCGANCritic]] = {
    network.__name__: network for network in (MLP, DCGANGenerator, DCGANCritic)
}
"""Networks that can be read back from a file, by the name of their class."""


def mixes_points(network: nn.Module) -> bool:
    """Whether a point's output depends on the others of its batch."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return any(isinstance(layer, kinds) for layer in network.modules())


def _images(latent: int, channels: int, width: int, side: int, norm: str) -> tuple[int, int, int]:
    if side not in _SIDES:
        raise ValueError(f"side must be one of {_SIDES}, got {side!r}; pass networks of your own for other images.")
    if norm not in _NORMS:
        raise ValueError(f"norm must be one of {_NORMS}, got {norm!r}.")
    return as_count(latent, "latent", 1), as_count(channels, "channels", 1), as_count(width, "width", 1)


def _up(inputs: int, outputs: int, norm: str) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=norm == "none")


def _normed(norm: str, channels: int, side: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.LayerNorm([channels, side, side]) if norm == "layer" else nn.Identity()


@torch.no_grad()
def _start(network: nn.Module, seed: int, std: float | None) -> None:
    """Normal weights: of deviation ``std`` where it is given (DCGAN), else He's; biases 0."""
    stream = torch.Generator().manual_seed(as_count(seed, "seed"))
    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            inputs = float(layer.in_features)
        else:  # a transposed convolution of stride s adds about (kernel / s)^2 terms
            size = layer.kernel_size[0] * layer.kernel_size[1]
            inputs = layer.in_channels * size / (4.0 if isinstance(layer, nn.ConvTranspose2d) else 1.0)
        gain = 1.0 if layer is layers[-1] else 2.0
        scale = math.sqrt(gain / inputs) if std is None else std
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=stream) * scale)
        if layer.bias is not None:
            layer.bias.zero_()


@torch.no_grad()
def _start_orthogonal(network: nn.Module, seed: int, gain: float) -> None:
    """Matrices drawn uniformly among those with orthonormal rows (or columns), times the gain; biases 0."""
    stream = torch.Generator().manual_seed(as_count(seed, "seed"))
    for layer in (m for m in network.modules() if isinstance(m, nn.Linear)):
        rows, columns = layer.weight.shape
        normal = torch.randn(max(rows, columns), min(rows, columns), generator=stream, dtype=torch.float64)
        q, r = torch.linalg.qr(normal)
        q = q * r.diagonal().sign()  # of Haar's law: QR alone has a sign of its own
        layer.weight.copy_(gain * (q if rows >= columns else q.T))
        layer.bias.zero_()
