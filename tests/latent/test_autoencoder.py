"""The autoencoder: what it reaches, that it repeats and continues exactly, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import otgan as og
from otgan.datasets import DataError
from otgan.images import Images, mnist
from otgan.latent import Autoencoder, AutoencoderState, Pair


def bars(n: int, side: int = 8, channels: int = 1, seed: int = 0) -> Images:
    """Images with two degrees of freedom: where a soft vertical and a soft horizontal bar are."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(1, side - 2, (2, n, 1))
    x, y = (np.exp(-((np.arange(side) - place) ** 2)) for place in at)
    grey = np.maximum(x[:, None, :], y[:, :, None])
    return Images.of(np.repeat(grey[:, None], channels, axis=1) * np.linspace(1, 0.5, channels)[:, None, None])


def small(latent: int = 4, seed: int = 0) -> Autoencoder:
    return Autoencoder(latent, width=8, hidden=128, seed=seed)


def same(a: Autoencoder, b: Autoencoder) -> bool:
    first, second = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


IMAGES = bars(600)
QUICK: dict[str, Any] = {"steps": 60, "batch": 64, "lr": 1e-2}


@pytest.fixture(scope="module")
def trained() -> Autoencoder:
    return small().fit(IMAGES, steps=300, batch=64, lr=1e-2)


# --- what it reaches ---


def test_it_beats_principal_components(trained: Autoencoder) -> None:
    new = bars(400, seed=1)
    train, test = (images.floats().flatten(1).double() for images in (IMAGES, new))
    centre = train.mean(dim=0)
    rows = torch.linalg.svd(train - centre, full_matrices=False).Vh[:4]
    linear = float((test - centre - (test - centre) @ rows.T @ rows).square().mean())
    assert trained.reconstruction_error(new) < 0.5 * linear


def test_the_error_is_the_mean_square(trained: Autoencoder) -> None:
    images = bars(30, seed=2)
    apart = trained.reconstruct(images) - images.floats()
    assert trained.reconstruction_error(images) == pytest.approx(float(apart.double().square().mean()), rel=1e-6)
    assert trained.report is not None
    assert trained.report.held_out < 0.01
    assert trained.report.images == 570


@pytest.mark.parametrize(
    ("height", "width", "channels", "grid"),
    [(28, 28, 1, 7), (32, 32, 3, 8), (64, 64, 1, 8), (64, 64, 3, 8), (16, 24, 3, 4), (20, 20, 1, 5)],
)
def test_every_size(height: int, width: int, channels: int, grid: int) -> None:
    images = torch.rand(12, channels, height, width)
    autoencoder = small(5).fit(images, steps=1, batch=4, precision="float32")
    codes = autoencoder.encode(images)
    decoded = autoencoder.decode(codes)
    assert (codes.shape, decoded.shape) == ((12, 5), images.shape)
    assert 0.0 <= float(decoded.min()) <= float(decoded.max()) <= 1.0
    assert autoencoder.network.decoder[3].unflattened_size[1] == grid


def test_bytes_and_reals_have_the_same_codes(trained: Autoencoder) -> None:
    images = bars(5)
    expected = trained.encode(images)
    for form in (images.pixels, images.pixels.numpy(), images.floats(), images.floats().double(), images.pixels[:, 0]):
        assert torch.allclose(trained.encode(form), expected, atol=1e-6)


def test_whitening_makes_codes_white() -> None:
    plain = small().fit(IMAGES, steps=300, batch=64, lr=1e-2)
    white = small().fit(IMAGES, steps=300, batch=64, lr=1e-2, whiten=0.3)

    def apart(autoencoder: Autoencoder) -> float:
        codes = autoencoder.encode(IMAGES).double()
        return float((codes.T.cov() - torch.eye(4)).norm() + codes.mean(dim=0).norm())

    assert apart(white) < 0.5 < apart(plain)


def test_the_penalty_shrinks_codes_and_noise_smooths_the_decoder() -> None:
    def spread(autoencoder: Autoencoder) -> float:
        return float(autoencoder.encode(IMAGES).square().mean().sqrt())

    plain = small().fit(IMAGES, steps=300, batch=64, lr=1e-2)
    assert spread(small().fit(IMAGES, steps=300, batch=64, lr=1e-2, penalty=0.1)) < 0.6 * spread(plain)
    plain = small(16).fit(IMAGES, steps=300, batch=64, lr=1e-2)
    noisy = small(16).fit(IMAGES, steps=300, batch=64, lr=1e-2, noise=0.7)
    errors = []
    for autoencoder in (plain, noisy):
        codes = autoencoder.encode(IMAGES)
        stream = torch.Generator().manual_seed(0)
        moved = codes + 0.7 * codes.square().mean().sqrt() * torch.randn(codes.shape, generator=stream)
        errors.append(float((autoencoder.decode(moved) - IMAGES.floats()).square().mean()))
    assert errors[1] < 0.8 * errors[0]


# --- the decoder alone ---


def test_refining_keeps_codes_and_never_harms(trained: Autoencoder, tmp_path: Path) -> None:
    autoencoder = og.load(trained.save(tmp_path))
    codes, held = autoencoder.encode(IMAGES), bars(100, seed=3)
    before = autoencoder.reconstruction_error(held)
    autoencoder.refine(IMAGES, held_out=held, steps=200, batch=64, lr=1e-3)
    assert torch.equal(autoencoder.encode(IMAGES), codes)
    assert autoencoder.reconstruction_error(held) < before
    assert autoencoder.report.phase == "decoder"
    before = autoencoder.reconstruction_error(held)
    autoencoder.refine(IMAGES, held_out=held, steps=3, batch=64, lr=10.0, averaging=0.0)
    assert autoencoder.reconstruction_error(held) == before


# --- repeating, continuing, ending ---


def test_the_seed_decides() -> None:
    a, b, c = (small(seed=seed).fit(IMAGES, noise=0.1, **QUICK) for seed in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)


def test_the_global_stream_is_not_touched() -> None:
    before = torch.get_rng_state()
    small().fit(IMAGES, noise=0.1, **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cut", [17, 40])
def test_an_interrupted_training_continues_bit_by_bit(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "noise": 0.1, "whiten": 0.01}
    whole = small().fit(IMAGES, **settings)
    from otgan.latent._training import Training

    descend = Training._descend

    def killed(self: Training) -> float:
        if self.step == cut:
            raise MemoryError("killed")
        return descend(self)

    monkeypatch.setattr(Training, "_descend", killed)
    with pytest.raises(MemoryError):
        small().fit(IMAGES, **settings, checkpoint=tmp_path, checkpoint_every=10)
    monkeypatch.setattr(Training, "_descend", descend)
    resumed = small().fit(IMAGES, **settings, checkpoint=tmp_path, checkpoint_every=10)
    assert same(whole, resumed)
    assert resumed.report is not None and whole.report is not None
    assert resumed.report.steps == whole.report.steps
    again = small().fit(IMAGES, **settings, checkpoint=tmp_path)
    assert same(again, whole)
    with pytest.raises(ValueError, match="something else than a checkpoint of this training"):
        small().fit(bars(600, seed=5), **settings, checkpoint=tmp_path)


def test_ctrl_c_leaves_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    from otgan.latent._training import Training

    descend = Training._descend

    def pressed(self: Training) -> float:
        if self.step == 40:
            raise KeyboardInterrupt
        return descend(self)

    monkeypatch.setattr(Training, "_descend", pressed)
    autoencoder = small().fit(IMAGES, **QUICK)
    assert autoencoder.report is not None
    assert (autoencoder.report.status, autoencoder.report.steps) == ("interrupted", 40)
    assert autoencoder.reconstruction_error(IMAGES) < float(IMAGES.floats().var())


def test_a_callback_ends_it_and_time_does(trained: Autoencoder) -> None:
    seen: list[AutoencoderState] = []

    def stop(state: AutoencoderState) -> bool:
        seen.append(state)
        return len(seen) == 3

    stopped = small().fit(IMAGES, callback=stop, **QUICK)
    assert stopped.report is not None
    assert (stopped.report.status, stopped.report.steps) == ("stopped", seen[-1].step)
    assert [entry["held_out"] for entry in stopped.report.history] == [state.held_out for state in seen]
    late = small().fit(IMAGES, steps=10**6, batch=64, max_time=0.5)
    assert late.report is not None
    assert late.report.status == "max_time"
    assert 0 < late.report.steps < 10**6


def test_it_stops_when_held_out_images_do_not_gain() -> None:
    few = bars(24)
    autoencoder = small().fit(few, held_out=bars(50, seed=9), steps=1200, lr=2e-2, patience=2)
    assert autoencoder.report is not None
    assert autoencoder.report.status == "early_stop"
    errors = [entry["held_out"] for entry in autoencoder.report.history]
    assert autoencoder.report.held_out == min(errors)
    assert autoencoder.reconstruction_error(bars(50, seed=9)) == pytest.approx(min(errors), rel=1e-6)


@pytest.mark.parametrize(("n", "steps"), [(100, 1000), (1600, 1875), (60_000, 10_000)])
def test_few_images_have_fewer_steps(n: int, steps: int) -> None:
    from otgan.latent.autoencoder import _default_steps

    assert _default_steps(n, 256) == steps


def test_nothing_held_out_returns_the_last() -> None:
    autoencoder = small().fit(IMAGES, held_out=0.0, **QUICK)
    assert autoencoder.report is not None
    assert math.isnan(autoencoder.report.held_out)
    assert autoencoder.report.best_step == 60


def test_saving_and_loading(trained: Autoencoder, tmp_path: Path) -> None:
    again = og.load(trained.save(tmp_path))
    assert torch.equal(again.encode(IMAGES), trained.encode(IMAGES))
    assert torch.equal(again.reconstruct(IMAGES), trained.reconstruct(IMAGES))
    assert again.report == trained.report
    assert repr(again) == repr(trained)


# --- what it refuses ---


@pytest.mark.parametrize(
    ("images", "latent", "said"),
    [
        (torch.rand(30, 1, 9, 8), 4, "sides divisible by 4.*size=8"),
        (torch.rand(30, 1, 4, 4), 4, "sides divisible by 4"),
        (torch.rand(30, 1, 8, 8), 64, "no shorter than the images, which have 64"),
        (torch.rand(30, 1, 8, 8), 29, "needs more than 29 images to train on, got 28"),
        (torch.rand(1, 1, 8, 8), 4, "at least 2 images"),
        (torch.full((30, 1, 8, 8), 0.5), 4, "All 28 images are the same"),
    ],
)
def test_data_that_cannot_be_learned_is_told(images: torch.Tensor, latent: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        small(latent).fit(images, **QUICK)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(30, 8), "shape"),
        (torch.rand(30, 2, 8, 8), "c = 1 or 3"),
        (torch.rand(30, 1, 8, 8) * 255, "uint8, or reals in"),
        (torch.full((30, 1, 8, 8), math.nan), "reals in"),
    ],
)
def test_numbers_that_are_no_images_are_told(images: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small().fit(images, **QUICK)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"lr": -1.0}, "lr"),
        ({"noise": -0.1}, "noise"),
        ({"penalty": math.inf}, "penalty"),
        ({"held_out": 1.0}, "held_out"),
        ({"precision": "float16"}, "precision"),
        ({"max_time": 0.0}, "max_time"),
        ({"held_out": torch.rand(3, 1, 12, 12)}, "made for"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small().fit(IMAGES, **{**QUICK, **settings})


def test_a_wild_rate_is_told() -> None:
    with pytest.raises(RuntimeError, match="lower lr"):
        small().fit(IMAGES, steps=200, batch=64, lr=1e12, precision="float32")


def test_use_before_training_and_other_shapes_are_told(trained: Autoencoder) -> None:
    with pytest.raises(RuntimeError, match="not been trained yet"):
        small().encode(IMAGES)
    with pytest.raises(ValueError, match="made for"):
        trained.encode(torch.rand(3, 1, 12, 12))
    with pytest.raises(ValueError, match="dimension 3, expected 4"):
        trained.decode(torch.zeros(2, 3))
    assert trained.decode(torch.zeros(0, 4)).shape == (0, 1, 8, 8)


# --- a pair of functions ---


def test_a_pair_of_functions_is_an_autoencoder() -> None:
    matrix = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0][:, :10]
    pair = Pair(lambda x: x.flatten(1) @ matrix, lambda z: z @ matrix.T, (1, 8, 8))
    assert pair.latent == 10
    x = IMAGES.floats().flatten(1)
    assert torch.allclose(pair.encode(IMAGES), x @ matrix, atol=1e-6)
    expected = float((((x @ matrix) @ matrix.T).clamp(0, 1) - x).square().mean())
    assert pair.reconstruction_error(IMAGES) == pytest.approx(expected, rel=1e-5)


def test_pairs_that_do_not_fit_are_told() -> None:
    with pytest.raises(TypeError, match="encode must be a function"):
        Pair(3, lambda z: z, (1, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(k, d\)"):
        Pair(lambda x: x, lambda z: z, (1, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        Pair(lambda x: x.flatten(1) * math.nan, lambda z: z, (1, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(1, 7\)"):
        Pair(lambda x: x.flatten(1), lambda z: z, (1, 8, 8), latent=7)
    with pytest.raises(ValueError, match="decode must return images"):
        Pair(lambda x: x.flatten(1), lambda z: z[:, :5], (1, 8, 8)).reconstruct(IMAGES)


# --- real images ---


@pytest.mark.slow
def test_mnist_codes_beat_as_many_principal_components(data_dir: Path) -> None:
    train, test = mnist(True, data_dir / "mnist"), mnist(False, data_dir / "mnist")
    x, y = (images.floats().flatten(1).double() for images in (train, test))
    centre = x.mean(dim=0)
    rows = torch.linalg.eigh((x - centre).T @ (x - centre)).eigenvectors[:, -32:].T
    linear = float((y - centre - (y - centre) @ rows.T @ rows).square().mean())
    assert linear == pytest.approx(0.0168, abs=2e-4)
    autoencoder = Autoencoder(32).fit(train, steps=600)
    assert autoencoder.reconstruction_error(test) < 0.55 * linear
