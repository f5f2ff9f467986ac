"""The choice among generators by targets that none of them was shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from otgan.generators.fit import fit_generator
from otgan.generators.generator import EntropicGenerator, Generator, was_interrupted
from otgan.generators.local import LocalGenerator
from otgan.generators.selection import SAMPLES, VALIDATION, Judge, Score, drawn, noise_floor, split_targets, without
from otgan.solvers.base import Stopwatch

if TYPE_CHECKING:
    from otgan.measures import Source
    from otgan.potential import BrenierPotential


class Choice(NamedTuple):
    """What was chosen, the scores of those that were compared, and whether Ctrl-C cut the comparison short."""

    generator: Generator
    scores: dict[str, Score]
    interrupted: bool = False


def choose(potential: BrenierPotential, source: Source, settings: dict[str, Any], more: dict[str, Any]) -> Choice:
    """The best of local maps, entropic map and convex network.

    Args:
        potential: u_h.
        source: mu.
        settings: of :func:`otgan.generators.fit_generator`; ``validation`` is the share of targets set aside.
        more: callbacks of the same.
    """
    scores: dict[str, Score] = {}
    seed, fraction = settings["seed"], settings.pop("validation", VALIDATION)
    aside = split_targets(potential.n, seed, fraction)
    if aside is None:
        return Choice(EntropicGenerator(potential, source), scores)
    others = without(potential, aside)
    held_out = drawn(potential.points[aside], potential.weights[aside], seed)
    clock = Stopwatch()
    best: Generator | None = None
    try:
        local = LocalGenerator.select(others, source, held_out, seed=seed)
        scores["local"] = local.scores[local.neighbours]
        best = made = LocalGenerator(potential, source, local.neighbours, seed=seed)
        made.scores = local.scores
        entropic = EntropicGenerator.select(others, source, held_out, seed=seed)
        scores["entropic"] = entropic.scores[entropic.reg]
        if scores["entropic"].total < scores["local"].total:
            best = smooth = EntropicGenerator(potential, source, entropic.reg)
            smooth.scores = entropic.scores
        least = min(score.total for score in scores.values())
        if least <= noise_floor(held_out, others.points, seed):
            return Choice(best, scores)
        settings["validation"] = (len(aside) + 0.5) / potential.n  # the same targets, as the seed is
        if settings["max_time"] is not None:
            settings["max_time"] = max(settings["max_time"] - clock.seconds, 0.1 * settings["max_time"])
        network = fit_generator(potential, source, "icnn", **settings, **more)
        scores["icnn"] = Judge(held_out, others.points, others.weights)(network.sample(SAMPLES, seed))
    except KeyboardInterrupt:
        return Choice(EntropicGenerator(potential, source) if best is None else best, scores, interrupted=True)
    if scores["icnn"].total < least:
        best = network
    return Choice(best, scores, interrupted=was_interrupted(network))
