"""Data flows one way: every import of the package is read and compared with the order of its parts."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A part imports itself and what has a lower rank. Modules of otgan/ whose name starts with an underscore have rank 0.
RANKS = {
    "kernels": 0,
    "distributed": 1,
    "io": 1,
    "datasets": 1,
    "images": 2,
    "measures": 1,
    "cellwise": 1,
    "potential": 2,
    "cost_potential": 2,
    "standardization": 3,
    "cells": 3,
    "callbacks": 4,
    "certificate": 4,
    "solvers": 5,
    "adversarial": 6,
    "generators": 6,
    "latent": 7,
    "loading": 8,
    "metrics": 7,
    "w2bench": 9,
    "plot": 8,
    "demo": 9,
    "report": 9,
    "cli": 10,
}
ENTRY = 11  # otgan/__main__.py
TOP = 12  # otgan/__init__.py
LAZY = {"PIL", "matplotlib", "ot", "pykeops", "sklearn"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
MAX_LINES = 400


def module_name(path: Path, root: Path = REPOSITORY) -> str:
    """``otgan/cells/line.py -> otgan.cells.line``, ``kernels/torch_.py -> otgan.kernels.torch_``."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["otgan", *parts] if parts[0] == "kernels" else parts)


def part_of(module: str) -> str:
    """``otgan.cells.line -> cells``, ``otgan -> otgan``."""
    return module.split(".")[1] if "." in module else module


def rank_of(part: str) -> int:
    if part == "otgan":
        return TOP
    if part == "__main__":
        return ENTRY
    if part.startswith("_"):
        return 0
    if part not in RANKS:
        pytest.fail(
            f"otgan.{part} has no rank: give it one in {Path(__file__).name}, where the order of the parts is kept"
        )
    return RANKS[part]


def sources() -> list[Path]:
    return sorted(path for folder in ("otgan", "kernels") for path in (REPOSITORY / folder).rglob("*.py"))


MODULES = {module_name(path): path for path in sources()}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def import_nodes(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements below ``node``, without those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            assert isinstance(child, ast.If)
            for statement in child.orelse:
                yield from import_nodes(ast.Module([statement], []), inside_functions)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_nodes(child, inside_functions)


def imported(
    tree: ast.AST, module: str, package: bool, inside_functions: bool = True, known: set[str] | None = None
) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported; ``from otgan import x`` is ``otgan.x`` where that is a module."""
    known = set(MODULES) if known is None else known
    for node in import_nodes(tree, inside_functions):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
            continue
        base = node.module or ""
        if node.level:
            above = module.split(".")
            above = above[: len(above) - node.level + (1 if package else 0)]
            base = ".".join([*above, base]) if base else ".".join(above)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield node.lineno, whole if whole in known else base


def wrong_way(source: str, module: str, package: bool = False, known: set[str] | None = None) -> list[str]:
    """The imports of ``source`` that point to the right, as messages."""
    part = part_of(module)
    found = []
    for line, name in imported(ast.parse(source), module, package, known=known):
        if name.split(".")[0] != "otgan":
            if name.split(".")[0] == "kernels":
                found.append(f"{module}:{line} imports {name}: its name is otgan.kernels")
            continue
        other = part_of(name)
        if other != part and rank_of(other) >= rank_of(part):
            found.append(f"{module}:{line} imports {name}: {part} has rank {rank_of(part)}, {other} {rank_of(other)}")
    return found


def heavy_at_import(source: str, module: str) -> list[str]:
    """The imports of ``source`` that run with the module itself and pull in much."""
    if part_of(module) == "plot":
        return []
    return [
        f"{module}:{line} imports {name} at module level: import it inside the function that needs it"
        for line, name in imported(ast.parse(source), module, package=False, inside_functions=False)
        if name.split(".")[0] in LAZY
    ]


def pickles(source: str, module: str) -> list[str]:
    """Every place of ``source`` that reads or writes pickles."""
    found = []
    tree = ast.parse(source)
    for line, name in imported(tree, module, package=False):
        if name.split(".")[0] in PICKLERS:
            found.append(f"{module}:{line} imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            found += [f"{module}:{node.lineno} torch.{a.name}" for a in node.names if a.name in {"load", "save"}]
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}:
            found.append(f"{module}:{node.lineno} {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"{module}:{node.value.lineno} allow_pickle={ast.unparse(node.value)}")
    return found


def over_all_modules() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", sorted(MODULES))


# --- the package ---


def test_both_trees_are_read() -> None:
    assert {"otgan", "otgan.kernels", "otgan.cells"} <= PACKAGES


@over_all_modules()
def test_imports_go_one_way(module: str) -> None:
    assert wrong_way(MODULES[module].read_text(encoding="utf-8"), module, module in PACKAGES) == []


@over_all_modules()
def test_heavy_packages_are_imported_where_they_are_needed(module: str) -> None:
    assert heavy_at_import(MODULES[module].read_text(encoding="utf-8"), module) == []


@over_all_modules()
def test_nothing_is_pickled(module: str) -> None:
    assert pickles(MODULES[module].read_text(encoding="utf-8"), module) == []


@over_all_modules()
def test_a_file_is_one_thing(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, (
        f"{MODULES[module].relative_to(REPOSITORY)} has {lines} lines, at most {MAX_LINES}: split it"
    )


@pytest.fixture(scope="module")
def fresh_import(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], str]:
    """What a new interpreter, started away from the repository, finds after ``import otgan``; and what that printed."""
    program = (
        "import sys, json, importlib.util as u, otgan.kernels\n"
        "spec = u.find_spec('kernels')\n"
        "print('\\0' + json.dumps({\n"
        f"  'heavy': sorted({LAZY!r} & set(sys.modules)),\n"
        "  'ours': otgan.kernels.__file__,\n"
        "  'top_level': str(spec and (spec.origin or list(spec.submodule_search_locations)))}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path_factory.mktemp("away"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    printed, _, found = done.stdout.partition("\0")
    return json.loads(found), printed + done.stderr


def test_import_is_light_and_silent(fresh_import: tuple[dict[str, object], str]) -> None:
    found, printed = fresh_import
    assert found["heavy"] == []
    assert printed == ""


def test_kernels_is_found_inside_otgan_only(fresh_import: tuple[dict[str, object], str]) -> None:
    found, _ = fresh_import
    assert Path(str(found["ours"])).parent == REPOSITORY / "kernels"
    assert str(REPOSITORY / "kernels") not in str(found["top_level"])


# --- the checks themselves ---


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("otgan.kernels.torch_", "import otgan.measures"),
        ("otgan.kernels.torch_", "from otgan import _checks"),
        ("otgan.kernels.torch_", "from .. import measures"),
        ("otgan.potential", "from .solvers import solve"),
        ("otgan.potential", "from otgan.certificate import Certificate"),
        ("otgan.cells.line", "def f():\n    from otgan.solvers.newton import Newton"),
        ("otgan.cells.line", "from ..solvers import newton"),
        ("otgan.cells.line", "import otgan as og"),
        ("otgan.cells.line", "from otgan import __version__"),
        ("otgan.cells.line", "import kernels"),
        ("otgan.certificate", "import otgan.callbacks"),
        ("otgan.cells.line", "if TYPE_CHECKING:\n    pass\nelse:\n    import otgan.cli"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    known = {"otgan", *(f"otgan.{part}" for part in RANKS), "otgan._checks", "otgan.solvers.newton"}
    assert len(wrong_way(source, module, known=known)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("otgan.kernels.torch_", "import torch\nfrom . import dispatch\nfrom otgan.kernels.dispatch import use"),
        ("otgan.measures.box", "from otgan._checks import points\nfrom otgan import kernels"),
        ("otgan.cells.line", "from .base import ExactCells\nfrom ..potential import BrenierPotential"),
        ("otgan.cells.line", "if TYPE_CHECKING:\n    from otgan.solvers import Result"),
        ("otgan.cli", "from otgan.demo import demo\nfrom otgan.solvers import solve"),
        ("otgan", "from . import kernels, measures\nfrom .solvers import solve"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    known = {"otgan", *(f"otgan.{part}" for part in RANKS), "otgan._checks"}
    assert wrong_way(source, module, package=module == "otgan", known=known) == []


def test_a_heavy_import_is_found_at_module_level_only() -> None:
    assert len(heavy_at_import("import ot", "otgan.solvers.discrete")) == 1
    assert (
        len(heavy_at_import("try:\n    from sklearn.cluster import KMeans\nexcept ImportError:\n    pass", "otgan.io"))
        == 1
    )
    assert heavy_at_import("def f():\n    import ot", "otgan.solvers.discrete") == []
    assert heavy_at_import("import matplotlib.pyplot as plt", "otgan.plot.cells") == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=flag)",
    ],
)
def test_a_pickle_is_found(source: str) -> None:
    assert len(pickles(source, "otgan.io")) == 1
    assert pickles("import numpy as np\nnp.load('x', allow_pickle=False)  # never pickle", "otgan.io") == []
