"""The FID proper: what is asked of torch-fidelity, and what is said where it or the weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from otgan.metrics import fid, frechet_distance

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class Extractor(torch.nn.Module):
    """Stands for the network: bytes in, (features,) out."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        assert (name, features) == ("inception-v3-compat", ["2048"])
        self.scale = torch.nn.Parameter(torch.tensor(float(Path(feature_extractor_weights_path).read_text())))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3 and not self.training
        return (self.scale * x.float().mean(dim=(2, 3)),)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake: Any = ModuleType(MODULE)
    fake.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, fake)
    path = tmp_path / "weights"
    path.write_text("0.5")
    return path


def test_it_is_the_frechet_distance_of_the_features(weights: Path) -> None:
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (150, 1, 9, 9), dtype=torch.uint8, generator=stream)
    y = torch.randint(0, 200, (100, 1, 9, 9), dtype=torch.uint8, generator=stream)
    features = [0.5 * part.float().mean(dim=(2, 3)).expand(-1, 3) for part in (x, y)]
    assert fid(x, y, weights) == pytest.approx(frechet_distance(*features), rel=1e-6)
    assert fid(x / 255, y, weights) == pytest.approx(fid(x, y, weights), rel=1e-6)
    assert fid(x, x, weights) == pytest.approx(0.0, abs=1e-9)


def test_what_is_missing_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(FileNotFoundError, match=r"no Inception weights in .*nowhere"):
        fid(x, x, weights.with_name("nowhere"))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        fid(x.expand(-1, 2, -1, -1), x.expand(-1, 2, -1, -1), weights)
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(ImportError, match=r"otgan\[fid\]"):
        fid(x, x, weights)
