"""Generators: maps that carry source samples to new points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otgan import io
from otgan._checks import as_count, as_points, as_positive
from otgan.generators.entropic import entropic_reg
from otgan.generators.networks import ICNN, Conjugate, ConvexNetwork, Coordinates, ResidualMLP, conjugate
from otgan.generators.selection import SAMPLES, Judge, Score, candidate_regs
from otgan.measures.saving import pack_source, unpack_source
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otgan._checks import ArrayLike
    from otgan.measures import Source

_NETWORKS: dict[str, type[ICNN] | type[ResidualMLP]] = {"ICNN": ICNN, "ResidualMLP": ResidualMLP}
_BLOCK = 1 << 14
_RESOLVED = 1e-4  # of the extent of a coordinate: what float32 may round of it
_TINY, _HUGE = 1e-30, 1e37  # where float32 nears the ends of its range


class Generator(nn.Module, ABC):
    """A map G from a source mu to new points: ``G(x)``, shape (m, d) -> (m, d), and samples of ``G_# mu``.

    Attributes:
        source: mu.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    @abstractmethod
    def forward(self, x: ArrayLike) -> Tensor:
        """``G(x)``, shape (m, d)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the map is computed."""

    @torch.no_grad()
    def sample(self, n: int, seed: int | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` new points, shape (n, d); the same for the same seed on one kind of device.

        They are float32, unless the targets are so far from the origin for their extent, or so small or large, that
        float32 would round them by more than a ten-thousandth of it: then float64.
        """
        kind = torch.float32 if float32_resolves(*self._range()) else torch.float64
        x = self.source.sample(n, seed=seed, generator=generator, device=self.device).to(kind)
        if len(x) == 0:
            return x
        return torch.cat([self(block) for block in x.split(_BLOCK)]).to(kind)

    def _range(self) -> tuple[Tensor, Tensor]:
        """A point amid the images and their extent about it, both (d,), float64; about the origin unless known."""
        return torch.zeros(self.source.dim), torch.ones(self.source.dim)

    @abstractmethod
    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain settings and tensors, from which an equal generator is made."""

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        return io.save(path, type(self).__name__, *self.pack())


class TargetGenerator(Generator):
    """A map that is read off a potential, on the device of its targets and within their range.

    Attributes:
        potential: u_h.
    """

    potential: BrenierPotential

    @property
    def device(self) -> torch.device:
        """Where the targets are."""
        return self.potential.points.device

    def _range(self) -> tuple[Tensor, Tensor]:
        y = self.potential.points.double()
        low, high = y.amin(dim=0), y.amax(dim=0)
        return 0.5 * (low + high), 0.5 * (high - low)


class NearestGenerator(TargetGenerator):
    """The optimal map itself, ``T_h(x) = y_i`` on the power cell of i: every sample is a copy of a target."""

    def __init__(self, potential: BrenierPotential, source: Source) -> None:
        super().__init__(source)
        self.potential = potential

    def forward(self, x: ArrayLike) -> Tensor:
        """``T_h(x)``, shape (m, d)."""
        return self.potential.transport(x)

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Source and potential."""
        return pack_with_potential(self, {}, self.potential)


class EntropicGenerator(TargetGenerator):
    """The entropic map ``sum_i p_i(x) y_i``, ``p_i ~ b_i exp((<x, y_i> + h_i) / reg)``.

    Args:
        potential: u_h.
        source: mu.
        reg: eps > 0, in the unit of a score; :func:`entropic_reg` when left out, :meth:`select` chooses one by held-out
            points.
    """

    def __init__(self, potential: BrenierPotential, source: Source, reg: float | None = None) -> None:
        super().__init__(source)
        self.potential = potential
        self.reg = entropic_reg(potential, source) if reg is None else as_positive(reg, "reg")
        self.scores: dict[float, Score] = {}

    @classmethod
    @torch.no_grad()
    def select(
        cls,
        potential: BrenierPotential,
        source: Source,
        held_out: ArrayLike,
        *,
        regs: Sequence[float] | None = None,
        samples: int = SAMPLES,
        seed: int = 0,
    ) -> EntropicGenerator:
        """The regularisation whose samples are nearest in law to points that the solve did not see.

        "Nearest" is the least total of :class:`otgan.generators.Score`: samples must be as far from the training points
        as held-out points are (neither copies nor blurs), and of the same law.

        Args:
            potential: u_h.
            source: mu.
            held_out: points of the same law as the targets, shape (k, d), not among them.
            regs: candidates; by default from four times :func:`entropic_reg` downwards, each half of the one before,
                to where most samples are copies; then the two between the best and its neighbours.
            samples: m, drawn for each candidate from the same source points.
            seed: of these.

        Returns:
            The generator; its ``scores`` are those of all candidates, by reg.
        """
        y = as_points(held_out, "held_out", potential.dim).to(potential.points)
        if len(y) < 2:
            raise ValueError(f"held_out must hold at least 2 points, got {len(y)}.")
        named = regs is not None
        if regs is None:
            regs = candidate_regs(potential, source, entropic_reg(potential, source), seed)
        tried = sorted({as_positive(reg, "regs") for reg in regs})
        if not tried:
            raise ValueError("regs is empty; name at least one regularisation, or leave it out.")
        count, scores = as_count(samples, "samples", 2), {}
        judge = Judge(y, potential.points, potential.weights)

        def best(among: Sequence[float]) -> float:
            for reg in among:
                scores[reg] = judge(cls(potential, source, reg).sample(count, seed))
            return min(scores, key=lambda reg: scores[reg].total)

        reg = best(tried)
        if not named:
            reg = best([reg * 2.0**0.5, reg / 2.0**0.5])
        chosen = cls(potential, source, reg)
        chosen.scores = dict(sorted(scores.items()))
        return chosen

    def forward(self, x: ArrayLike) -> Tensor:
        """The entropic map, shape (m, d)."""
        return self.potential.smooth_transport(x, self.reg)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"reg={self.reg:.4g}"

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Source, potential and reg."""
        return pack_with_potential(self, {"reg": self.reg}, self.potential)


@dataclass(frozen=True)
class FitReport:
    """How a network was fitted.

    Attributes:
        loss: "fenchel-young" or "squared", of the last phase.
        status: "finished", "early_stop", "max_time", "stopped" (by a callback) or "interrupted".
        steps: done.
        best_step: the step whose averaged weights were kept.
        held_out: their loss on pairs of targets that the fit did not see; NaN without such targets.
        pairs: pairs (x, T_h(x)) that were fitted to.
        seconds: wall-clock time, pairs included.
        history: one dictionary a measurement: step, phase, loss, held_out, seconds.
    """

    loss: str
    status: str
    steps: int
    best_step: int
    held_out: float
    pairs: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)


class NetworkGenerator(Generator):
    """A network between affine coordinates: ``G(x) = c + q A net(A (x - s))``, see :class:`Coordinates`.

    With a :class:`ConvexNetwork` it is the gradient of the convex function ``u(x) = q N(A (x - s)) + <x, c>``, hence an
    optimal map onto its image, and it can be inverted.

    Args:
        network: (m, d) -> (m, d).
        coordinates: A, s, c, q.
        source: mu.
        report: how it was fitted.
    """

    def __init__(
        self, network: nn.Module, coordinates: Coordinates, source: Source, report: FitReport | None = None
    ) -> None:
        super().__init__(source)
        self.network, self.coordinates, self.report = network, coordinates, report
        self._resolved = float32_resolves(*self._range())

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.coordinates.matrix.device

    def _range(self) -> tuple[Tensor, Tensor]:
        # t has mean eigenvalue 1: the rows of q A are the deviations of y, and three of them nearly all of it.
        return self.coordinates.target_mean, 3.0 * self.coordinates.scale * self.coordinates.matrix.norm(dim=1)

    def forward(self, x: ArrayLike) -> Tensor:
        """``G(x)``, shape (m, d), in the network's precision, or in float64 as :meth:`sample`; differentiable."""
        t = self.network(self.coordinates.source(self._inputs(x)))
        return self.coordinates.target_back(t if self._resolved else t.double())

    def value(self, x: ArrayLike) -> Tensor:
        """``u(x)`` with ``grad u = G``, shape (m,); convex networks only."""
        x = self._inputs(x)
        value = self._convex().value(self.coordinates.source(x))
        return self.coordinates.scale.to(x) * value + x @ self.coordinates.target_mean.to(x)

    def inverse(self, y: ArrayLike, *, iterations: int = 200, tol: float = 1e-5) -> Tensor:
        """``x`` with ``G(x) = y``, shape (m, d): the optimal map back, ``grad u*``; convex networks only."""
        return self.coordinates.source_back(self._conjugate(y, iterations, tol).argument)

    def conjugate(self, y: ArrayLike, *, iterations: int = 200, tol: float = 1e-5) -> Tensor:
        """``u*(y) = max_x <x, y> - u(x)``, shape (m,); convex networks only."""
        part = self._conjugate(y, iterations, tol).value
        apart = self._targets(y) - self.coordinates.target_mean
        return self.coordinates.scale.to(part) * part + (apart @ self.coordinates.source_mean).to(part)

    def semi_dual(self, x: ArrayLike, y: ArrayLike) -> float:
        """``mean u(x) + mean u*(y)``: of two maps the one with less is nearer to optimal between the laws of x and y.

        Its minimum over convex u is ``max E <x, y>`` over couplings, reached by the Brenier potential. On targets that
        no fit saw it is an unbiased yardstick.
        """
        with torch.no_grad():
            return float(self.value(x).double().mean() + self.conjugate(y).double().mean())

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Source, network, coordinates and report."""
        name = type(self.network).__name__
        if _NETWORKS.get(name) is not type(self.network):
            raise TypeError(
                f"A generator around a {name} cannot be read back and is not saved; known are "
                f"{', '.join(sorted(_NETWORKS))}. Keep its state_dict() instead."
            )
        source, tensors = pack_source(self.source)
        tensors |= {f"network.{key}": t for key, t in self.network.state_dict().items()}
        tensors |= {f"coordinates.{key}": t for key, t in self.coordinates.state_dict().items()}
        report = None if self.report is None else vars(self.report)
        settings = self.network.config()
        return {"source": source, "network": name, "settings": settings, "report": report}, tensors

    def _convex(self) -> ConvexNetwork:
        if not isinstance(self.network, ConvexNetwork):
            raise TypeError(f"A {type(self.network).__name__} has no potential; fit with network='icnn' for one.")
        return self.network

    def _targets(self, y: ArrayLike) -> Tensor:
        """Checked y, float64: in the network's precision it would be lost far from the origin."""
        return as_points(y, "y", self.coordinates.dim, allow_empty=True).to(self.device).double()

    def _conjugate(self, y: ArrayLike, iterations: int, tol: float) -> Conjugate:
        t = self.coordinates.target(self._targets(y)).to(next(self.network.parameters()).dtype)
        return conjugate(self._convex().value_and_gradient, t, t.clone(), iterations, tol)

    def _inputs(self, x: ArrayLike) -> Tensor:
        checked = as_points(x, "x", self.coordinates.dim, allow_empty=True)
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        parameter = next(self.network.parameters())
        return checked.to(device=parameter.device, dtype=parameter.dtype)


def float32_resolves(center: Tensor, extent: Tensor) -> bool:
    """Whether float32 tells points about ``center`` within ``extent`` apart in every coordinate, both (d,)."""
    largest = center.abs() + extent
    rounded = (torch.finfo(torch.float32).eps * largest > _RESOLVED * extent) | (extent < _TINY)
    rounded = torch.where(extent > 0.0, rounded, center.float().double() != center)  # a constant: exactly, or not
    return not bool((rounded | (largest > _HUGE)).any())


def was_interrupted(generator: Generator) -> bool:
    """Whether Ctrl-C ended its fit."""
    report = getattr(generator, "report", None)
    return report is not None and report.status == "interrupted"


def check_brenier(potential: object, source: Source, needed: str) -> None:
    """Refuse potentials of other costs, saying what is ``needed``, and a source of another dimension."""
    if not isinstance(potential, BrenierPotential):
        raise TypeError(f"{needed}; got {type(potential).__name__}.")
    if source.dim != potential.dim:
        raise ValueError(f"source has dimension {source.dim}, the potential {potential.dim}.")


def pack_with_potential(
    generator: Generator, config: dict[str, Any], potential: BrenierPotential
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a generator that is read off a potential: its source, ``config`` and the potential."""
    source, tensors = pack_source(generator.source)
    tensors |= {f"potential.{name}": t for name, t in potential.state_dict().items()}
    return {"source": source, **config}, tensors


def tensors_under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


_LOADERS: dict[str, io.Loader] = {}


def register_generator(kind: str) -> Callable[[io.Loader], io.Loader]:
    """Make :func:`otgan.load` and :func:`unpack_generator` rebuild generators of class ``kind`` with this function."""

    def decorate(loader: io.Loader) -> io.Loader:
        _LOADERS[kind] = loader
        return io.register(kind)(loader)

    return decorate


@register_generator("NearestGenerator")
def _load_nearest(config: dict[str, Any], tensors: dict[str, Tensor]) -> NearestGenerator:
    return NearestGenerator(
        BrenierPotential(**tensors_under(tensors, "potential.")), unpack_source(config["source"], tensors)
    )


@register_generator("EntropicGenerator")
def _load_entropic(config: dict[str, Any], tensors: dict[str, Tensor]) -> EntropicGenerator:
    potential = BrenierPotential(**tensors_under(tensors, "potential."))
    return EntropicGenerator(potential, unpack_source(config["source"], tensors), config["reg"])


@register_generator("NetworkGenerator")
def _load_network(config: dict[str, Any], tensors: dict[str, Tensor]) -> NetworkGenerator:
    network = _NETWORKS[config["network"]](**config["settings"])
    network.load_state_dict(tensors_under(tensors, "network."))
    state = tensors_under(tensors, "coordinates.")
    eye = torch.eye(len(state["source_mean"]), dtype=torch.float64)
    coordinates = Coordinates(state["source_mean"], eye, state["target_mean"], eye)
    coordinates.load_state_dict(state)
    report = config["report"]
    if report is not None:
        report = FitReport(**{**report, "held_out": float("nan") if report["held_out"] is None else report["held_out"]})
    return NetworkGenerator(network, coordinates, unpack_source(config["source"], tensors), report)


def unpack_generator(kind: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
    """The generator of class ``kind`` that :meth:`Generator.pack` described."""
    if kind not in _LOADERS:
        raise ValueError(f"unknown generator {kind!r}; known are {', '.join(sorted(_LOADERS))}")
    return _LOADERS[kind](config, tensors)
