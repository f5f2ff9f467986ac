"""The benchmarks of images: what is there is not made again, what cannot be made is left out, and the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from otgan.datasets import digits
from otgan.images import Images

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture(scope="module")
def benches() -> tuple[ModuleType, ModuleType]:
    """``bench_images`` and ``bench_stacked_mnist``, found as a script finds what lies beside it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import bench_images
        import bench_stacked_mnist
    finally:
        sys.path.remove(str(BENCHMARKS))
    return bench_images, bench_stacked_mnist


@pytest.fixture(scope="module")
def small() -> tuple[Images, Images]:
    """Digits of 8 x 8, 400 to learn from and 120 held out."""
    pixels, labels = digits()
    images = Images.of((pixels * 255 / 16).round().astype(np.uint8).reshape(-1, 8, 8), labels=labels)
    return images.subset(slice(0, 400)), images.subset(slice(400, 520))


@pytest.fixture
def settings() -> dict[str, Any]:
    common = {"latent": 3, "autoencoder_steps": 30, "whiten": 0.0, "noise": 0.0, "steps": 20, "epochs": 100}
    return common | {"n_samples": 90, "n_stacked": 300, "coder": "channels", "pixels": False, "seed": 0}


@pytest.fixture(autouse=True)
def few_channels(monkeypatch: pytest.MonkeyPatch, benches: tuple[ModuleType, ModuleType]) -> None:
    """A smaller autoencoder and classifier."""
    stages = sys.modules["imaging.stages"]
    whole = stages.Autoencoder
    monkeypatch.setattr(stages, "Autoencoder", lambda latent, seed: whole(latent, width=4, hidden=16, seed=seed))
    trained = stages.train_classifier
    monkeypatch.setattr(stages, "train_classifier", lambda *a, **k: trained(*a, **k, width=4, n_features=16, shift=0))
    monkeypatch.setattr(stages, "find_spec", lambda name: None)  # as where the adversarial baselines are missing


def test_rows_are_made_once(
    benches: tuple[ModuleType, ModuleType],
    small: tuple[Images, Images],
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, Store = benches[0], sys.modules["imaging.store"].Store
    file = tmp_path / "out.json"
    wanted = ["real, one half", "training images", "reconstructed", "prior noise", "nearest", "WGAN-GP, pixels"]
    images.Bench(Store(file, settings), *small, settings).run(wanted)
    assert "WGAN-GP, pixels is left out: there is no otgan.adversarial" in capsys.readouterr().err
    found = json.loads(file.read_text())
    assert list(found["rows"]) == wanted[:-1]
    assert set(found["stages"]) == {"classifier", "autoencoder", "transport"}
    rows = found["rows"]
    assert rows["training images"]["metrics"]["authenticity"]["value"] < 0.1
    assert rows["real, one half"]["n_test"] == 60 and rows["nearest"]["n_test"] == 120
    assert rows["nearest"]["about"]["seconds"] > found["stages"]["autoencoder"]["wall"]
    assert rows["reconstructed"]["metrics"]["frechet_distance"]["null"] > 0

    # Whatever is there is taken from there: stages from their folders, samples from theirs, rows from the file.
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    for name in ("train_classifier", "Autoencoder"):
        monkeypatch.setattr(sys.modules["imaging.stages"], name, never)
    store = Store(file, settings)
    del store.rows["nearest"]
    images.Bench(store, *small, settings).run([*wanted[:-1], "Gaussian of the codes"])
    again = json.loads(file.read_text())["rows"]
    assert set(again) == {*wanted[:-1], "Gaussian of the codes"}
    assert again["nearest"]["metrics"] == rows["nearest"]["metrics"]
    text = images.table(json.loads(file.read_text()))
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + 1 + 6
    assert "real images in their place (n = 90)" in text and "accuracy" in text
    with pytest.raises(SystemExit, match="other settings"):
        Store(file, settings | {"latent": 4})
    assert Store(file, {}, reading=True).rows == again
    with pytest.raises(SystemExit, match="There is no"):
        Store(tmp_path / "nothing.json", {}, reading=True)


@pytest.mark.parametrize("coder", ["channels", "image"])
def test_stacked_rows(
    benches: tuple[ModuleType, ModuleType],
    small: tuple[Images, Images],
    settings: dict[str, Any],
    tmp_path: Path,
    coder: str,
) -> None:
    stacked, Store = benches[1], sys.modules["imaging.store"].Store
    settings = settings | {"coder": coder}
    file = tmp_path / "out.json"
    bench = stacked.Bench(Store(file, settings), *small, settings)
    assert bench.codes.shape == (300, 9)
    bench.run([stacked.REAL, "reconstructed", "prior noise", "nearest", "WGAN-GP, pixels"])
    found = json.loads(file.read_text())
    assert list(found["rows"]) == [stacked.REAL, "reconstructed", "prior noise", "nearest"]
    real = found["rows"][stacked.REAL]
    assert real["captured"] == pytest.approx(real["captured_null"], abs=15)
    pixels, _ = bench.store.samples("nearest", lambda: pytest.fail("made again"))
    assert pixels.shape == (90, 3, 8, 8) and pixels.dtype == torch.uint8
    if coder == "channels":  # a code is that of its three digits, in their order
        code = bench.coder.encode(small[0].pixels[bench.stacked.numbers[5]]).flatten()
        torch.testing.assert_close(bench.codes[5], code, rtol=1e-4, atol=1e-4)
    decoded = bench.decode(bench.codes[:4])
    whole = bench.stacked.pixels[:4] if coder == "image" else bench.stacked.pixels[:4].flatten(0, 1)[:, None]
    torch.testing.assert_close(decoded, bench.coder.reconstruct(whole).reshape(4, 3, 8, 8), rtol=1e-3, atol=1e-3)
    text = stacked.table(found)
    assert "perfect, 90" in text and "of 1000" in text


def test_baselines_that_need_no_transport(benches: tuple[ModuleType, ModuleType]) -> None:
    stages = sys.modules["imaging.stages"]
    codes = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    drawn = stages.gaussian_codes(codes + 5.0)(20_000, 1)
    torch.testing.assert_close(drawn.mean(dim=0), codes.mean(dim=0) + 5.0, rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(codes.T), rtol=0.05, atol=0.1)
    assert torch.equal(stages.gaussian_codes(codes)(5, 1), stages.gaussian_codes(codes)(5, 1))
    assert stages.prior_noise(4)(7, 0).shape == (7, 4)
    with pytest.raises(stages.Skipped, match="no otgan.adversarial"):
        stages.wgan_gp(codes, 1.0, 0)
