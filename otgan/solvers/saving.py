"""A result as plain settings and tensors."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import otgan.measures
from otgan import io
from otgan.certificate import Certificate
from otgan.measures import DiscreteMeasure
from otgan.potential import BrenierPotential
from otgan.solvers.result import Plan, Result

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_PLAIN = (
    "method",
    "reason",
    "status",
    "message",
    "tol",
    "n_iter",
    "n_scores",
    "n_samples",
    "seconds",
    "history",
    "value",
)
_FLOATS = {f.name for f in fields(Certificate) if f.type == "float"}


def save_result(result: Result, path: str | Path) -> Path:
    """Write ``result`` into the folder ``path``."""
    config: dict[str, Any] = {name: getattr(result, name) for name in _PLAIN}
    config["certificate"] = result.certificate.to_dict()
    settings, source = result.source.state()
    config["source"] = {"class": type(result.source).__name__, **settings}
    tensors: dict[str, Tensor] = {f"source.{name}": t for name, t in source.items()}
    tensors |= {f"potential.{name}": t for name, t in result.potential.state_dict().items()}
    tensors["target.index"] = result.target.index
    for name in ("masses", "centroids"):
        if (values := getattr(result, name)) is not None:
            tensors[f"cells.{name}"] = values
    if result.plan is not None:
        import torch

        matrix = result.plan.matrix
        tensors["plan.mass"] = torch.from_numpy(matrix.data.copy())
        tensors["plan.row"] = torch.from_numpy(matrix.coords[0].astype("int64"))
        tensors["plan.col"] = torch.from_numpy(matrix.coords[1].astype("int64"))
        tensors["plan.source_dual"] = result.plan.source_dual
        tensors["plan.target_dual"] = result.plan.target_dual
    return io.save(path, "Result", config, tensors)


@io.register("Result")
def _load_result(config: dict[str, Any], tensors: dict[str, Tensor]) -> Result:
    settings = dict(config["source"])
    name = settings.pop("class")
    if name not in otgan.measures.__all__:
        raise ValueError(f"unknown source {name!r}")
    source = getattr(otgan.measures, name).from_state(settings, _under(tensors, "source."))
    state = _under(tensors, "potential.")
    potential = BrenierPotential(**state)
    target = DiscreteMeasure(state["points"], state["weights"])
    target.index = tensors["target.index"]
    certificate: dict[str, Any] = {
        name: float("nan") if value is None and name in _FLOATS else value
        for name, value in config["certificate"].items()
    }
    return Result(
        potential=potential,
        source=source,
        target=target,
        certificate=Certificate(**certificate),
        masses=tensors.get("cells.masses"),
        centroids=tensors.get("cells.centroids"),
        plan=_plan(_under(tensors, "plan."), source, target),
        **{name: config[name] for name in _PLAIN},
    )


def _plan(tensors: dict[str, Tensor], source: Any, target: DiscreteMeasure) -> Plan | None:
    if not tensors:
        return None
    from scipy.sparse import coo_array

    coordinates = (tensors["row"].numpy(), tensors["col"].numpy())
    matrix = coo_array((tensors["mass"].numpy(), coordinates), shape=(source.m, target.n))
    return Plan(matrix, tensors["source_dual"], tensors["target_dual"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
