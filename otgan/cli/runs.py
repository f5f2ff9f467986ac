"""What `otgan fit` writes, read back: a solution alone, or a model with its generator; and points drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otgan.cli.common import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from otgan.generators import OTGAN, Generator
    from otgan.solvers import Result

Kind = Literal["local", "icnn", "mlp", "entropic", "extension", "nearest"]
"""How a draw of the source becomes a point: the names of :class:`otgan.OTGAN`, without "auto"."""

_BLOCK = 1 << 14


@dataclass(frozen=True)
class Draw:
    """Points drawn from a run.

    Attributes:
        points: shape (n, d).
        generator: name of what drew them.
        reg: of the entropic map, None for others.
        how: the same in words.
    """

    points: NDArray[Any]
    generator: str
    reg: float | None
    how: str


@dataclass(frozen=True)
class SavedRun:
    """A run that was read back.

    Attributes:
        result: of the solve.
        model: when the run was fitted with a generator, else None.
        lost: why a generator that was asked for is not there.
    """

    result: Result
    model: OTGAN | None = None
    lost: BaseException | None = None

    def draw(self, n: int, seed: int, kind: Kind | None = None, reg: float | None = None) -> Draw:
        """Points by the run's own generator (the entropic map of a plain solution), or by the ``kind`` asked for.

        All kinds but networks are read off the potential, so that every run has them.
        """
        if self.model is not None and reg is None and kind in (None, own_kind(self.model)):
            generator = self.model.generator
            return self._drawn(generator, own_kind(self.model), self.model.sample(n, seed).cpu().numpy())
        if kind is None:
            kind = "entropic" if self.model is None or reg is None else own_kind(self.model)
        if reg is not None and kind != "entropic":
            raise UsageError(f"--reg smooths the entropic generator, this is {kind}; add --generator entropic.")
        generator, u = self._made(kind, reg), self.result.potential
        x = self.result.source.sample(n, seed=seed, dtype=u.points.dtype)
        import torch

        with torch.no_grad():
            points = torch.cat([generator(block) for block in x.split(_BLOCK)])
        return self._drawn(generator, kind, points.cpu().numpy())

    def _made(self, kind: Kind, reg: float | None) -> Generator:
        from otgan.generators import EntropicGenerator, ExtensionGenerator, LocalGenerator, NearestGenerator

        u: Any = self.result.potential
        source = self.result.source
        if kind == "nearest":
            return NearestGenerator(u, source)
        if kind == "entropic":
            return EntropicGenerator(u, source, reg)
        if kind in ("icnn", "mlp"):
            raise UsageError(f"This run has no {kind}, which must be fitted: `otgan fit FILE --generator {kind}`.")
        if u.p != 2.0:
            raise UsageError(f"The {kind} generator is for p = 2, this run has p = {u.p:g}; use entropic or nearest.")
        return LocalGenerator(u, source) if kind == "local" else ExtensionGenerator(u, source)

    def _drawn(self, generator: Generator, kind: str, points: NDArray[Any]) -> Draw:
        reg = getattr(generator, "reg", None)
        words = {
            "nearest": "transport map: points of the training set",
            "entropic": f"entropic map, reg = {reg:.4g}" if reg is not None else "",
            "local": f"local maps, {getattr(generator, 'neighbours', 0.0):.3g} neighbours",
            "extension": "extension of the transport map between its cells",
            "icnn": "gradient of a convex network",
            "mlp": "network",
        }
        return Draw(points, kind, reg, words[kind])


def own_kind(model: OTGAN) -> Kind:
    """Name of the generator that a fitted model holds, which for "auto" is what was chosen."""
    from otgan.generators import EntropicGenerator, ExtensionGenerator, LocalGenerator, NearestGenerator
    from otgan.generators.networks import ConvexNetwork

    generator: Any = model.generator
    kinds: dict[type, Kind] = {
        NearestGenerator: "nearest",
        EntropicGenerator: "entropic",
        LocalGenerator: "local",
        ExtensionGenerator: "extension",
    }
    if type(generator) in kinds:
        return kinds[type(generator)]
    return "icnn" if isinstance(generator.network, ConvexNetwork) else "mlp"


def read_run(path: Path) -> Any:
    """Whatever was saved in this folder."""
    from otgan.loading import FormatError, load

    try:
        return load(path)
    except (FormatError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


def load_run(path: Path) -> SavedRun:
    """What `otgan fit` saved in this folder, of points."""
    from otgan.generators import OTGAN
    from otgan.latent import LatentOTGAN
    from otgan.solvers import Result

    run = read_run(path)
    if isinstance(run, OTGAN):
        return SavedRun(run.result, run)
    if isinstance(run, LatentOTGAN):
        raise UsageError(f"{path} holds a generator of images, which `otgan report` and `otgan sample` take.")
    if not isinstance(run, Result):
        raise UsageError(f"{path} holds a {type(run).__name__}, expected what `otgan fit` writes.")
    return SavedRun(run)
