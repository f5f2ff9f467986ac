"""One run of one method: processor time of the training alone, quality against it."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import otgan as og
from gan.problems import Data, draw, judge, look, modes
from otgan.adversarial import MLP, PRESETS, TrainingState, train

BASELINES = ("gan", "wgan", "wgan-gp", "lsgan")
METHODS = (*BASELINES, "otgan", "otgan-mlp")
_LOG, _LINEAR, _SPAN = 12, 20, 200.0
_SHOWN = 800
_SHORTER = 8  # runs of OTGAN with a limit, each 1.6 times the one before


@dataclass(frozen=True)
class Task:
    """One run, as it is handed to a worker.

    Attributes:
        kind: "published" (settings, for a time), "tuned" (likewise, other settings), "trial" (of a tuning), or "steps"
            (published settings for the published number of steps).
        setting: what differs from the published numbers.
        budget: seconds of processor time; 0 for none.
        width: units of a hidden layer of both networks; 0 for the published one.
    """

    problem: str
    method: str
    seed: int
    kind: str
    budget: float
    width: int
    setting: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_train: int = 10_000

    @property
    def key(self) -> str:
        """By which its result is known."""
        parts = (self.problem, self.method, self.seed, self.kind, f"{self.budget:g}", self.width, self.n_train)
        return "/".join(map(str, parts)) + "".join(f"/{k}={v}" for k, v in sorted(self.setting.items()))


def run(task: Task) -> dict[str, Any]:
    """The record of one run."""
    data = draw(task.problem, task.seed, task.n_train)
    warm(data.dim, "entropic" if task.method in BASELINES else "auto")
    found = _baseline(task, data) if task.method in BASELINES else _ours(task, data)
    return {
        **dataclasses.asdict(task),
        "key": task.key,
        "unit": data.unit,
        "held_out": judge(data, data.fresh),
        **found,
    }


def warm(dim: int, generator: str) -> None:
    """Compile what is compiled at the first call, before any clock runs: all of it where there is no cache on disk."""
    few = np.random.default_rng(0).normal(size=(300, dim)).astype(np.float32)
    og.OTGAN(generator=generator, seed=0).fit(few)
    train("wgan-gp", few, steps=2, width=8, batch=8)
    look(Data("codes", few, few, few, 1.0), few)


# ------------------------------------------------------------------ baselines


class Recorder:
    """Measures the generator at planned moments of a run; the clock of the processor stands still meanwhile."""

    def __init__(self, data: Data, budget: float, seed: int) -> None:
        self.data, self.budget, self.seed = data, budget, seed
        self.curve: list[dict[str, float]] = []
        self.planned = moments(budget) if budget else [k / _LINEAR for k in range(1, _LINEAR + 1)]
        self.paused, self.begun = 0.0, time.process_time()

    @property
    def seconds(self) -> float:
        """Processor seconds of the training."""
        return time.process_time() - self.begun - self.paused

    def __call__(self, state: TrainingState) -> bool:
        """Measure if it is time; True when the budget is spent."""
        seconds = self.seconds
        reached = seconds if self.budget else state.step / state.steps
        due = bool(self.planned) and reached >= self.planned[0]
        if due:
            before = time.process_time()
            while self.planned and reached >= self.planned[0]:
                self.planned.pop(0)
            new = state.model.sample(len(self.data.test), seed=self.seed + 1).double().numpy()
            told = {"critic_loss": state.critic_loss, "generator_loss": state.generator_loss, "value": state.value}
            # Samples that are not finite have no place in a table; training itself stops for them a little later.
            seen = look(self.data, new) if np.isfinite(new).all() else {"sliced_w2": math.inf}
            self.curve.append({"seconds": seconds, "step": state.step, **seen, **told})
            self.paused += time.process_time() - before
        return bool(self.budget) and seconds >= self.budget


def moments(budget: float) -> list[float]:
    """When a run of this length is measured: twelve times on a logarithmic grid, and at every twentieth."""
    log = [budget * _SPAN ** (k / (_LOG - 1) - 1.0) for k in range(_LOG)]
    return sorted({round(t, 6) for t in (*log, *(budget * k / _LINEAR for k in range(1, _LINEAR + 1)))})


def settings_of(task: Task, dim: int) -> dict[str, Any]:
    """What a baseline is called with, beyond its published numbers."""
    preset = PRESETS[task.method]["toy"]
    settings: dict[str, Any] = {"width": task.width or preset.width, "depth": 3}
    if task.problem == "codes":
        # Noise of 2 dimensions cannot fill 32: all methods have as many as the codes, and lambda is that of images.
        settings["latent"] = dim
        if task.method == "wgan-gp":
            settings["penalty_weight"] = 10.0
    tuned = dict(task.setting)
    if "lr" in tuned:
        tuned.setdefault("critic_lr", tuned["lr"])
    return {**settings, **tuned}


def _baseline(task: Task, data: Data) -> dict[str, Any]:
    recorder = Recorder(data, task.budget, task.seed)
    settings, preset = settings_of(task, data.dim), PRESETS[task.method]["toy"]
    steps = preset.steps if task.kind == "steps" else 10**9
    model = train(
        task.method,
        data.train.astype(np.float32),
        preset="toy",
        steps=steps,
        seed=task.seed,
        callback=recorder,
        **settings,
    )
    seconds = recorder.seconds
    return {
        "curve": recorder.curve,
        "final": _final(task, data, model),
        "seconds": seconds,
        "steps": model.steps,
        "status": model.status,
        "parameters": sum(p.numel() for p in model.generator.parameters()),
        "note": f"{model.preset.source}; {settings}",
        "samples": _shown(task, data, model),
    }


# ----------------------------------------------------------------------- ours


def _ours(task: Task, data: Data) -> dict[str, Any]:
    """One run without a limit, and shorter ones: what would be had after that many seconds."""
    curve: list[dict[str, float]] = []
    begun = time.process_time()
    model = _otgan(task, data, None)
    whole = time.process_time() - begun
    for power in range(_SHORTER, 0, -1):
        begun = time.process_time()
        short = _otgan(task, data, whole / 1.6**power)
        spent = time.process_time() - begun
        curve.append({"seconds": spent, "step": math.nan, **look(data, _new(task, data, short))})
    curve.append({"seconds": whole, "step": math.nan, **look(data, _new(task, data, model))})
    generator = model.generator
    kind, asked = type(generator).__name__, "MLP" if task.method == "otgan-mlp" else "auto"
    return {
        "curve": sorted(curve, key=lambda point: point["seconds"]),
        "final": _final(task, data, model),
        "seconds": whole,
        "steps": 0,
        "status": model.result.status,
        "parameters": sum(t.numel() for t in generator.state_dict().values()),
        "note": f"og.OTGAN(generator={asked!r}), Gaussian({data.dim}): {kind}, solve by {model.result.method!r}",
        "samples": _shown(task, data, model),
    }


def _otgan(task: Task, data: Data, limit: float | None) -> og.OTGAN:
    """The model: the generator that it picks itself, or the very network of the baselines."""
    own = MLP(data.dim, data.dim, task.width or 512, 3, seed=task.seed)
    kind: Any = own if task.method == "otgan-mlp" else "auto"
    return og.OTGAN(generator=kind, seed=task.seed).fit(data.train.astype(np.float32), max_time=limit)


def _new(task: Task, data: Data, model: Any) -> Any:
    return model.sample(len(data.test), seed=task.seed + 1).double().numpy()


def _final(task: Task, data: Data, model: Any) -> dict[str, float]:
    new = _new(task, data, model)
    if not np.isfinite(new).all():
        return {"sliced_w2": math.inf}
    try:
        return judge(data, new)
    except ValueError:  # samples so far from the data that no cell of the copying test holds any
        return look(data, new)


def _shown(task: Task, data: Data, model: Any) -> list[list[float]]:
    """A few samples for the figure, in the unit of the problem."""
    if task.seed or task.problem == "codes" or task.kind == "trial":
        return []
    return (_new(task, data, model)[:_SHOWN] * data.unit).round(3).tolist()


def failed(record: dict[str, Any]) -> bool:
    """Whether a run did not learn its problem: a mode missing, half of the samples off, or far from the law."""
    final, held = record["final"], record["held_out"]
    if record["status"] == "diverged" or "energy" not in final:
        return True
    if "modes" in final:
        return final["modes"] < held["modes"] or final["high_quality"] < 0.5
    return bool(final["sliced_w2"] > 4.0 * held["sliced_w2"])


def score(record: dict[str, Any], seconds: float) -> tuple[float, float]:
    """By which a setting is chosen: share of modes times share of high quality, then sliced W2, the larger the better.

    Both are means over the last quarter of the first ``seconds`` of a run, since single snapshots of these games vary.
    They are measured as in the tables, against the true law: in favour of the baselines.
    """
    late = [p for p in record["curve"] if 0.75 * seconds <= p["seconds"] <= 1.02 * seconds]
    late = [p for p in late if all(p.get(name) is not None for name in ("modes", "high_quality", "sliced_w2"))]
    if record["status"] == "diverged" or not late:
        return (-1.0, -math.inf)
    share = float(np.mean([p["modes"] for p in late])) / modes(record["problem"])
    return share * float(np.mean([p["high_quality"] for p in late])), -float(np.mean([p["sliced_w2"] for p in late]))


def best_of(tried: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of trials of one method, the published setting first: the best by :func:`score`.

    Where that is the published one, which failed, the best by sliced W2 alone: shares of high quality may differ by
    chance only, as on the arms.
    """
    best = max(tried, key=lambda run: score(run, seconds))
    return best if best is not tried[0] else max(tried, key=lambda run: score(run, seconds)[1])


GRID: tuple[dict[str, Any], ...] = tuple({"lr": lr, "critic_steps": k} for lr in (1e-4, 5e-4, 2e-3) for k in (1, 5))
"""What a baseline is tuned over besides its published setting: one rate for both networks, and k."""
