"""What is installed is what is in the tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import otgan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def python_files() -> set[str]:
    """Paths of all modules as they are in the wheel: ``kernels/x.py`` is ``otgan/kernels/x.py``."""
    ours = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "otgan").rglob("*.py")}
    return ours | {
        f"otgan/{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / "kernels").rglob("*.py")
    }


def test_every_package_on_disk_is_listed_and_no_other() -> None:
    on_disk = {path.rpartition("/")[0].replace("/", ".") for path in python_files()}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(on_disk), "[tool.setuptools] packages in pyproject.toml and the folders disagree"


def test_every_package_has_an_init() -> None:
    files = python_files()
    assert {path.rpartition("/")[0] for path in files} == {
        path.rpartition("/")[0] for path in files if path.endswith("/__init__.py")
    }


def test_every_statement_of_the_version_agrees() -> None:
    version = PYPROJECT["project"]["version"]
    assert otgan.__version__ == version
    assert metadata.version("otgan") == version, "installed from another pyproject.toml: run `make test`"
    assert f"## [{version}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_direct_dependency() -> None:
    def name(requirement: str) -> str:
        head = requirement.split(";")[0]
        for mark in "[<>=!~ ":
            head = head.split(mark)[0]
        return head.strip().lower().replace("_", "-")

    project = PYPROJECT["project"]
    direct = {name(r) for group in [project["dependencies"], *project["optional-dependencies"].values()] for r in group}
    lines = (REPOSITORY / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name(line) for line in lines if line and not line.startswith("#")}
    assert direct - {"otgan"} <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools keeps deleted files in ``build/lib`` of the tree it builds in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    for name in ("otgan", "kernels"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(tree),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_every_module_and_the_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name for name in names if name.endswith(".py")} == python_files()
    assert "otgan/py.typed" in names
    assert "otgan/kernels/__init__.py" in names
    assert {name.split("/")[0] for name in names} == {"otgan"}


def test_wheel_holds_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert "BSD 3-Clause" in archive.read(info["licenses/LICENSE"]).decode()
        assert "otgan = otgan.cli:main" in archive.read(info["entry_points.txt"]).decode()
        fields = archive.read(info["METADATA"]).decode()
    assert "Requires-Python: >=3.10" in fields
    assert "License-Expression: BSD-3-Clause" in fields


@pytest.mark.slow
def test_installed_kernels_are_inside_otgan(wheel: Path, tmp_path: Path) -> None:
    """An unpacked wheel imports as ``otgan.kernels``, and holds no module ``kernels``."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import otgan.kernels\n"
        "assert otgan.kernels.__file__.startswith(sys.argv[1]), otgan.kernels.__file__\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "kernels").exists()
