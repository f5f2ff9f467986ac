"""``otgan doctor``: what this installation can do."""

from __future__ import annotations

import os
import platform
import textwrap
from dataclasses import dataclass
from typing import Any

from otgan.cli.common import OK, Common, note, say, say_json

_PACKAGES = (
    *("otgan", "numpy", "scipy", "torch", "POT", "pykeops", "numba", "triton", "matplotlib", "safetensors"),
    "scikit-learn",
)


@dataclass(frozen=True, kw_only=True)
class Doctor(Common):
    """Say what is installed, and which devices and kernels work here.

    A kernel backend counts as working when it computed a small sum; KeOps compiles for that,
    up to a minute or two the first time.
    """

    def run(self) -> int:
        """Look and print."""
        note("Probing the kernels; KeOps compiles for up to a minute or two at its first use ...")
        report = examine()
        if self.json:
            say_json(report)
            return OK
        rows = [("python", report["python"]), *report["versions"].items()]
        rows += [
            ("platform", report["platform"]),
            ("CPU", f"{report['cpu_cores']} cores, {report['torch_threads']} torch threads"),
        ]
        rows.append(("CUDA", ", ".join(report["cuda_devices"]) or f"none ({report['cuda_reason']})"))
        rows.append(
            ("kernels for", "; ".join(f"{device}: {name}" for device, name in report["kernels_default"].items()))
        )
        for name, state in report["kernels"].items():
            works = f"works on {', '.join(state['devices'])}" if state["available"] else "does not work"
            rows.append((f"kernel {name}", works + (f" ({state['reason']})" if state["reason"] else "")))
        rows.append(("OTGAN_DATA", report["data"]))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            lines = textwrap.wrap(str(value or "not installed"), 78 - width) or [""]
            say(f"{name:<{width}}  {lines[0]}")
            for line in lines[1:]:
                say(" " * (width + 2) + line)
        return OK


def examine() -> dict[str, Any]:
    """Versions, devices, kernels and the data folder, in plain values."""
    import torch

    from otgan import kernels
    from otgan.datasets import data_folder

    cuda = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
    folder = data_folder()
    data = "not set; it may name a folder of large real data for tests and benchmarks"
    if folder is not None:
        data = str(folder) if folder.is_dir() else f"{folder}, which is not a folder"
    status = kernels.status()
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda_devices": devices,
        "cuda_reason": "" if cuda else _why_no_cuda(torch.version.cuda),
        "kernels_requested": os.environ.get("OTGAN_KERNELS") or "auto",
        "kernels_default": _defaults(cuda),
        "kernels": {
            name: {"available": state.available, "reason": state.reason, "devices": list(state.devices)}
            for name, state in status.items()
        },
        "data": data,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _why_no_cuda(built_for: str | None) -> str:
    return "this torch is built for the CPU only" if built_for is None else f"torch for CUDA {built_for} sees no device"


def _defaults(cuda: bool) -> dict[str, str]:
    """The backend that answers, by device, in a low and in a high dimension."""
    from otgan.kernels.dispatch import choose

    out = {}
    for device in ("cpu", "cuda") if cuda else ("cpu",):
        low, high = choose(device, 2), choose(device, 1000)
        out[device] = low if low == high else f"{low}, in high dimension {high}"
    return out
