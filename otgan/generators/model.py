"""``OTGAN``: one convex solve, from which generator and critic are read off."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from otgan import io, kernels
from otgan._checks import as_count, as_points, as_positive
from otgan.generators._choice import Choice, choose
from otgan.generators._pairs import enough_pairs, pairs_wanted
from otgan.generators._recorder import Recorder
from otgan.generators.extension import ExtensionGenerator
from otgan.generators.fit import as_network, fit_generator
from otgan.generators.generator import (
    EntropicGenerator,
    Generator,
    NearestGenerator,
    unpack_generator,
    was_interrupted,
)
from otgan.generators.local import LocalGenerator
from otgan.generators.selection import Score
from otgan.measures import DiscreteMeasure, Gaussian, Source
from otgan.potential import BrenierPotential
from otgan.solvers import Result, solve
from otgan.solvers.base import Stopwatch
from otgan.solvers.dispatch import picks
from otgan.solvers.saving import pack_result, unpack_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otgan._checks import ArrayLike
    from otgan.certificate import Certificate
    from otgan.solvers.base import Solver

GENERATORS = ("auto", "local", "icnn", "mlp", "entropic", "extension", "nearest")
"""Names that ``generator=`` knows; a torch module (m, d) -> (m, d) is fitted like "mlp"."""

_NETWORKS = ("auto", "icnn", "mlp")  # these may need pairs
_OWN = {"potential", "source", "network", "progress", "callback", "checkpoint"}  # of fit_generator, given by the model
_FINAL = ("converged", "max_iter", "stalled")  # a run that continues this one has the same potential

_TOL = 0.05  # chi2: the network averages over the cells, whose masses need not be finer
_SIDE_SAMPLES = 1 << 14  # source points of the c-transform on the data side


class Distance(NamedTuple):
    """``W2(mu, nu)`` as the dual value says, between the certified ends."""

    value: float
    lower: float
    upper: float

    @classmethod
    def of(cls, certificate: Certificate) -> Distance:
        """What a certificate says."""
        middle = min(max(2.0 * certificate.dual, 0.0) ** 0.5, certificate.w2_upper)
        return cls(max(middle, certificate.w2_lower), certificate.w2_lower, certificate.w2_upper)


class OTGAN:
    r"""Generator and critic from one convex optimisation.

    One semi-discrete solve from a source mu to the data nu gives the Brenier potential u_h. Its assignments
    ``x -> T_h(x) = grad u_h(x)`` are the pairs that a generator network is fitted to; its Legendre partner
    ``phi(x) = |x|^2/2 - u_h(x)`` is the critic. Nothing is adversarial.

    The sampling solver shows every batch that it counts: the pairs come from there, and the generator costs no score of
    its own (Gu, Luo, Sun, Yau 2016 for the potential; :func:`otgan.generators.fit_generator` for the losses).

    Args:
        source: mu; a standard Gaussian of the data's dimension when left out.
        generator: "local" (each cell stretched over the neighbourhood of its target), "icnn" (gradient of a convex
            network), "mlp", "entropic" (smoothed map), "extension" (barycentres of neighbouring targets, none across
            singular facets), "nearest" (T_h itself, which copies the data), a torch module (m, d) -> (m, d), or "auto":
            see below.
        method: solver, as for :func:`otgan.solve`.
        tol: of the solve; 0.05 in chi2 for sampling solvers when left out.
        seed: of everything random.
        solver: further settings of the solver.
        fit: further settings of the fit, as for :func:`otgan.generators.fit_generator`; ``{"reg": eps}`` for
            "entropic", ``{"neighbours": k}`` for "local", those of :class:`otgan.generators.ExtensionGenerator` for
            "extension".

    "auto" chooses between local maps, the entropic map (neighbours and regularisation chosen likewise) and the convex
    network, by the :class:`otgan.generators.Score` on a tenth of the data (2,048 points at most) that the compared
    generators do not see: the first two are compared with these targets switched off, the network is fitted to the
    cells of the others. The network is not fitted where a score is no worse than that of one half of these points
    against the other. What is returned uses all targets, apart from the network's fit. With fewer than 200 targets
    there is no choice: it is the entropic map by the rule.

    Attributes:
        result: of the solve, with its certificate; set by :meth:`fit`.
        potential: the Brenier potential.
        generator: a :class:`otgan.generators.Generator`.
        scores: of the candidates of "auto" by name.
        interrupted: whether Ctrl-C ended the solve or the making of the generator. The generator is then the best that
            was there, or the entropic map by the rule.

    Example:
        >>> import numpy as np
        >>> data = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = OTGAN(generator="entropic").fit(data)
        >>> model.sample(5, seed=1).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        source: Source | None = None,
        generator: str | nn.Module = "auto",
        *,
        method: str | Solver = "auto",
        tol: float | None = None,
        seed: int = 0,
        solver: dict[str, Any] | None = None,
        fit: dict[str, Any] | None = None,
    ) -> None:
        if source is not None and not isinstance(source, Source):
            raise TypeError(f"source must be a measure such as og.Gaussian(2), got {type(source).__name__}.")
        if not isinstance(generator, nn.Module) and generator not in GENERATORS:
            raise ValueError(f"generator must be one of {GENERATORS} or a torch module, got {generator!r}.")
        self.source, self.kind = source, generator
        self.method, self.tol, self.seed = method, tol, as_count(seed, "seed")
        self.solver, self.settings = dict(solver or {}), _known_settings(generator, dict(fit or {}))
        self.scores: dict[str, Score] = {}
        self.interrupted = False
        self._result: Result | None = None
        self._generator: Generator | None = None

    def fit(
        self,
        data: ArrayLike | DiscreteMeasure,
        weights: ArrayLike | None = None,
        *,
        max_time: float | None = None,
        progress: bool = False,
        callback: Callable[[Any], object] | None = None,
        checkpoint: str | Path | None = None,
    ) -> OTGAN:
        """Solve, then fit the generator to the pairs that the solver saw.

        Args:
            data: y_i, shape (n, d), or a measure.
            weights: b_i, shape (n,).
            max_time: seconds for both; the solve takes two thirds at most. The certificate, and the comparison of
                "auto", come on top: some seconds for ten thousand points.
            progress: show bars on standard error.
            callback: is shown the states of both; a true return value ends the part that is running.
            checkpoint: folder where both keep their progress, and go on from.

        Returns:
            The model itself. Ctrl-C ends the part that is running, and what was found is kept. Where making the
            generator fails, ``result`` holds the solve all the same.
        """
        if isinstance(data, DiscreteMeasure):
            if weights is not None:
                raise ValueError("data is a measure, which has its own weights; leave weights out.")
            nu = data
        else:
            nu = DiscreteMeasure(data, weights)
        source = self.source if self.source is not None else Gaussian(nu.dim)
        if isinstance(self.kind, nn.Module):
            as_network(self.kind, nu.dim, self.seed)  # its shapes, before anything is solved
        clock = Stopwatch(None if max_time is None else as_positive(max_time, "max_time"))
        wanted = self.settings.get("pairs")
        room = pairs_wanted(nu.n, nu.dim) if wanted is None else wanted
        network = isinstance(self.kind, nn.Module) or self.kind in _NETWORKS
        recorder = Recorder(room, nu.dim) if network and isinstance(room, int) else None
        folders = (None, None) if checkpoint is None else (f"{checkpoint}/solve", f"{checkpoint}/generator")
        # What fails on the way leaves no half of an earlier fit behind.
        self._result, self._generator, self.scores, self.interrupted = None, None, {}, False
        self._result = self._solve(source, nu, recorder, max_time, progress, callback, folders[0])
        if recorder is not None and enough_pairs(recorder.held, nu.n, room, wanted is not None):
            wanted = recorder.pairs()
        left = None if max_time is None else max(max_time - clock.seconds, 0.1 * max_time)
        settings = {"seed": self.seed, "max_time": left, **self.settings, "pairs": wanted}
        # A solve that goes on later has other pairs then: nothing of a fit to these can be continued.
        folder = folders[1] if self._result.status in _FINAL else None
        more: dict[str, Any] = {"progress": progress, "callback": callback, "checkpoint": folder}
        try:
            made = self._made(self._result, settings, more)
        except KeyboardInterrupt:  # the solve is done: its map can be had at once
            made = Choice(EntropicGenerator(self.potential, source), {}, interrupted=True)
        self._generator, self.scores = made.generator, made.scores
        self.interrupted = self._result.status == "interrupted" or made.interrupted
        return self

    def _solve(
        self,
        source: Source,
        nu: DiscreteMeasure,
        recorder: Recorder | None,
        max_time: float | None,
        progress: bool,
        callback: Callable[[Any], object] | None,
        checkpoint: str | None,
    ) -> Result:
        method = picks(source, nu, self.method, self.solver)
        sampling = method in ("stochastic-newton", "adam")
        return solve(
            source,
            nu,
            self.method,
            tol=_TOL if self.tol is None and sampling else self.tol,
            seed=self.seed,
            max_time=None if max_time is None else max_time * 2 / 3,
            progress=progress,
            callback=callback,
            checkpoint=checkpoint if method == "stochastic-newton" else None,
            observer=recorder,
            **self.solver,
        )

    def _made(self, result: Result, settings: dict[str, Any], more: dict[str, Any]) -> Choice:
        """The generator of this kind."""
        potential, source = self.potential, result.source
        if self.kind == "auto":
            return choose(potential, source, settings, more)
        made: Generator
        if self.kind == "nearest":
            made = NearestGenerator(potential, source)
        elif self.kind == "entropic":
            made = EntropicGenerator(potential, source, self.settings.get("reg"))
        elif self.kind == "extension":
            made = ExtensionGenerator(potential, source, **{"seed": self.seed, **self.settings})
        elif self.kind == "local":
            made = LocalGenerator(potential, source, **{"seed": self.seed, **self.settings})
        else:
            made = fit_generator(potential, source, self.kind, **settings, **more)
        return Choice(made, {}, was_interrupted(made))

    # ----------------------------------------------------------- what it is

    @property
    def solved(self) -> bool:
        """Whether there is a :attr:`result`: after a fit, also one that failed while it made the generator."""
        return self._result is not None

    @property
    def result(self) -> Result:
        """Of the solve."""
        if self._result is None:
            raise RuntimeError("This model has not been fitted yet; call fit(data) first.")
        return self._result

    @property
    def potential(self) -> BrenierPotential:
        """The Brenier potential."""
        potential = self.result.potential
        assert isinstance(potential, BrenierPotential)  # the cost is quadratic
        return potential

    @property
    def generator(self) -> Generator:
        """The map from source points to new points: ``model.generator(x)``."""
        if self._generator is None:
            if self._result is not None:
                raise RuntimeError("The last fit failed while it made the generator; its solve is in model.result.")
            raise RuntimeError("This model has not been fitted yet; call fit(data) first.")
        return self._generator

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """``n`` new points, shape (n, d): the generator at fresh points of the source, as :meth:`Generator.sample`."""
        return self.generator.sample(n, seed)

    def critic(self, x: ArrayLike) -> Tensor:
        """Kantorovich potential ``phi(x) = |x|^2/2 - u_h(x)``, shape (m,), for the cost |x-y|^2/2; differentiable once.

        ``grad phi(x) = x - T_h(x)``. Since ``phi(y) + psi(y) <= 0`` at every point, it separates the two laws:
        ``E_mu phi - E_nu phi >= W2^2(mu, nu) / 2``.
        """
        return self.potential.kantorovich(x)

    @torch.no_grad()
    def data_critic(self, y: ArrayLike, seed: int = 0, *, samples: int = _SIDE_SAMPLES) -> Tensor:
        """Its partner on the data side, ``psi(y) = min_x |x-y|^2/2 - phi(x)``, shape (m,), x over samples of mu.

        At a target it is at least ``psi_i = |y_i|^2/2 + h_i``, which is the limit as the samples fill its cell (its
        exact value is in ``potential.dual("half-sqeuclidean")``); elsewhere the c-transform extends it to all of space.
        """
        y = as_points(y, "y", self.potential.dim)
        x = self.result.source.sample(
            as_count(samples, "samples", 1), seed=seed, device=self.potential.points.device
        ).to(y.dtype)
        best = kernels.assign(y.to(x.device), x, -self.potential(x)).value
        return 0.5 * y.square().sum(dim=1).to(best) - best

    @property
    def distance(self) -> Distance:
        """``W2(source, data)`` from the dual value, with its certified interval."""
        return Distance.of(self.result.certificate)

    # --------------------------------------------------------------- saving

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain settings and tensors, from which :func:`unpack_model` makes an equal model."""
        result, tensors = pack_result(self.result)
        generator, more = self.generator.pack()
        tensors = {f"result.{name}": t for name, t in tensors.items()}
        tensors |= {f"generator.{name}": t for name, t in more.items()}
        kind = type(self.generator).__name__
        settings = {"seed": self.seed, "tol": self.tol}
        scores = {name: list(score) for name, score in self.scores.items()}
        config = {"result": result, "generator": generator, "kind": kind, "settings": settings, "scores": scores}
        return config | {"asked": self._asked(), "interrupted": self.interrupted}, tensors

    def _asked(self) -> dict[str, Any]:
        """What a later fit needs to be like this one, as far as it is plain: names and numbers."""
        given = {"generator": self.kind, "method": self.method, "solver": self.solver, "fit": self.settings}
        return {
            name: {key: entry for key, entry in value.items() if _is_plain(entry)} if isinstance(value, dict) else value
            for name, value in given.items()
            if isinstance(value, dict) or _is_plain(value)
        }

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        return io.save(path, "OTGAN", *self.pack())

    def __repr__(self) -> str:
        kind = type(self.kind).__name__ if isinstance(self.kind, nn.Module) else self.kind
        state = "not fitted" if self._result is None else f"fitted to {self.potential.n} points"
        return f"OTGAN(source={self.source!r}, generator={kind!r}, {state})"


@io.register("OTGAN")
def unpack_model(config: dict[str, Any], tensors: dict[str, Tensor]) -> OTGAN:
    """Inverse of :meth:`OTGAN.pack`."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    result = unpack_result(config["result"], under("result."))
    names = {
        "NearestGenerator": "nearest",
        "EntropicGenerator": "entropic",
        "ExtensionGenerator": "extension",
        "LocalGenerator": "local",
    }
    generator = unpack_generator(config["kind"], config["generator"], under("generator."))
    network = {"ICNN": "icnn", "ResidualMLP": "mlp"}.get(config["generator"].get("network", ""), "icnn")
    asked = {"generator": names.get(config["kind"], network), "method": result.method} | config.get("asked", {})
    model = OTGAN(result.source, **asked, **config["settings"])
    model.interrupted = bool(config.get("interrupted", False))
    model._result, model._generator = result, generator
    model.scores = {name: Score(*numbers) for name, numbers in config.get("scores", {}).items()}
    return model


def _is_plain(value: object) -> bool:
    """Whether a setting can be saved: a name or a number."""
    return isinstance(value, (bool, int, float, str, np.number, type(None)))


def _known_settings(kind: str | nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the fit, checked before anything is solved."""
    if isinstance(kind, nn.Module) or kind in _NETWORKS:
        known = set(signature(fit_generator).parameters) - _OWN
    else:
        own = {
            "entropic": {"reg"},
            "local": {"neighbours", "samples", "seed"},
            "extension": {"neighbours", "threshold", "samples", "seed"},
        }
        known = own.get(kind, set())
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"fit has no setting {', '.join(unknown)} for generator={kind!r}; it knows "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    if isinstance(settings.get("pairs"), tuple):
        raise ValueError("pairs are those of the solve; name how many, or call otgan.fit_generator with your own.")
    if settings.get("pairs") is not None:
        as_count(settings["pairs"], "pairs", 1)
    return settings
