"""A result as plain settings and tensors."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from otgan import io
from otgan.certificate import Certificate
from otgan.cost_potential import KantorovichPotential
from otgan.measures import DiscreteMeasure
from otgan.measures.saving import pack_source, unpack_source
from otgan.potential import BrenierPotential
from otgan.solvers.result import Plan, Result

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_PLAIN = {
    "method": "str",
    "reason": "str",
    "status": "str",
    "message": "str",
    "tol": "float",
    "n_iter": "int",
    "n_scores": "int",
    "n_samples": "int",
    "seconds": "float",
    "history": "list",
    "value": "float | None",
}


def save_result(result: Result, path: str | Path) -> Path:
    """Write ``result`` into the folder ``path``."""
    return io.save(path, "Result", *pack_result(result))


def pack_result(result: Result) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain settings and tensors, from which :func:`unpack_result` makes an equal result."""
    config: dict[str, Any] = {name: getattr(result, name) for name in _PLAIN}
    config["certificate"] = result.certificate.to_dict()
    config["source"], tensors = pack_source(result.source)
    tensors |= {f"potential.{name}": t for name, t in result.potential.state_dict().items()}
    if result.potential.p != 2.0:
        config["p"] = result.potential.p
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
    return config, tensors


@io.register("Result")
def unpack_result(config: dict[str, Any], tensors: dict[str, Tensor]) -> Result:
    """Inverse of :func:`pack_result`."""
    source = unpack_source(config["source"], tensors)
    state = _under(tensors, "potential.")
    potential = (
        KantorovichPotential(state["points"], state["psi"], state["weights"], config["p"])
        if "p" in config
        else BrenierPotential(**state)
    )
    target = DiscreteMeasure(state["points"], state["weights"])
    target.index = _index(tensors["target.index"], target.n)
    return Result(
        potential=potential,
        source=source,
        target=target,
        certificate=_certificate(config["certificate"]),
        masses=tensors.get("cells.masses"),
        centroids=tensors.get("cells.centroids"),
        plan=_plan(_under(tensors, "plan."), source, target),
        **{name: _number(config, name, _PLAIN[name]) for name in _PLAIN},
    )


def _certificate(config: dict[str, Any]) -> Certificate:
    """The certificate; what later versions added has its default where it is missing."""
    known = [f for f in fields(Certificate) if f.name in config or f.default is MISSING]
    return Certificate(**{f.name: _number(config, f.name, f.type) for f in known})


def _number(config: dict[str, Any], name: str, kind: Any) -> Any:
    """One plain value of the kind that its field declares."""
    value = config[name]
    if kind == "float" and value is None:
        return float("nan")  # JSON has no NaN
    wanted: dict[str, tuple[type, ...]] = {
        "float": (int, float),
        "int": (int,),
        "bool": (bool,),
        "str": (str,),
        "list": (list,),
        "float | None": (int, float, type(None)),
    }
    if not isinstance(value, wanted[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} should be {kind}, got {value!r}")
    return value


def _index(index: Tensor, n: int) -> Tensor:
    if index.ndim != 1 or index.dtype.is_floating_point or not set(index.unique().tolist()) == set(range(n)):
        raise ValueError(f"target.index should number {n} merged points")
    return index


def _plan(tensors: dict[str, Tensor], source: Any, target: DiscreteMeasure) -> Plan | None:
    if not tensors:
        return None
    from scipy.sparse import coo_array

    coordinates = (tensors["row"].numpy(), tensors["col"].numpy())
    matrix = coo_array((tensors["mass"].numpy(), coordinates), shape=(source.m, target.n))
    return Plan(matrix, tensors["source_dual"], tensors["target_dual"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
