"""Images to codes to a transport map to new images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import otgan as og
from otgan.datasets import DataError
from otgan.generators import NearestGenerator
from otgan.images import Images
from otgan.latent import Autoencoder, LatentOTGAN, Pair

SHAPE = (1, 8, 8)


def discs(n: int, seed: int = 0) -> Images:
    """Two classes, dark and bright soft discs at random places."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(2, 5, (2, n, 1, 1))
    rows, columns = np.arange(8)[:, None], np.arange(8)
    disc = np.exp(-((rows - x) ** 2 + (columns - y) ** 2) / 4)
    labels = np.arange(n) % 2
    return Images.of(disc * np.where(labels, 1.0, 0.4)[:, None, None], labels, ("dark", "bright"))


def pair() -> Pair:
    """Principal components of the discs, as two functions."""
    x = discs(400).floats().flatten(1)
    centre = x.mean(dim=0)
    rows = torch.linalg.svd(x - centre, full_matrices=False).Vh[:4]
    return Pair(lambda x: (x.flatten(1) - centre) @ rows.T, lambda z: z @ rows + centre, SHAPE)


IMAGES = discs(400)


@pytest.fixture(scope="module")
def model() -> LatentOTGAN:
    return LatentOTGAN(pair(), og.OTGAN(generator="entropic")).fit(IMAGES)


@pytest.fixture(scope="module")
def trained() -> LatentOTGAN:
    made = LatentOTGAN(Autoencoder(4, width=4, hidden=32), og.OTGAN(generator="entropic"))
    return made.fit(IMAGES, training={"steps": 60, "batch": 64, "lr": 1e-2})


# --- sampling ---


def test_new_images_are_decoded_codes_and_repeat(model: LatentOTGAN) -> None:
    images = model.sample(50, seed=1)
    assert images.shape == (50, *SHAPE)
    assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0
    assert torch.equal(images, model.autoencoder.decode(model.codes(50, seed=1)))
    assert torch.equal(images, model.sample(50, seed=1))
    assert not torch.equal(images, model.sample(50, seed=2))
    assert model.sample(0, seed=1).shape == (0, *SHAPE)


def test_the_solve_is_certified_and_its_bare_map_returns_the_images(model: LatentOTGAN) -> None:
    result = model.model.result
    assert result.converged
    assert result.certificate.chi2 <= 0.06
    bare = LatentOTGAN(model.autoencoder, og.OTGAN(generator="nearest")).fit(IMAGES)
    assert isinstance(bare.model.generator, NearestGenerator)
    distance = torch.cdist(bare.codes(200, seed=0).double(), model.autoencoder.encode(IMAGES).double())
    assert float(distance.min(dim=1).values.max()) < 1e-6


def test_new_images_have_the_law_of_the_images() -> None:
    model = LatentOTGAN(pair(), og.OTGAN(generator="nearest")).fit(IMAGES)
    new, real = model.sample(1000, seed=3), discs(1000, seed=7).floats()
    assert float((new.mean(dim=0) - real.mean(dim=0)).abs().max()) < 0.05
    assert float(new.flatten(1).var(dim=0).sum() / real.flatten(1).var(dim=0).sum()) == pytest.approx(1.0, abs=0.2)


def test_a_cube_as_source() -> None:
    model = LatentOTGAN(pair(), og.OTGAN(og.UniformBox(dim=4), "entropic")).fit(IMAGES)
    assert model.source.dim == 4
    assert model.sample(3, seed=0).shape == (3, *SHAPE)


# --- classes ---


def test_by_class_samples_the_class_that_is_asked_for() -> None:
    model = LatentOTGAN(pair(), og.OTGAN(generator="entropic")).fit(IMAGES, by_class=True)
    assert model.names == ("dark", "bright")
    assert len(model.models) == 2
    for label, inside in (("dark", (0.2, 0.6)), (0, (0.2, 0.6)), ("bright", (0.7, 1.0)), (1, (0.7, 1.0))):
        peak = model.sample(100, seed=0, label=label).flatten(1).max(dim=1).values.median()
        assert inside[0] < float(peak) < inside[1]
    labels = model.labels(1000, seed=5)
    assert torch.equal(labels, model.labels(1000, seed=5))
    assert 400 < int(labels.sum()) < 600
    peaks = model.sample(1000, seed=5).flatten(1).max(dim=1).values
    assert float(peaks[labels == 0].median()) < 0.6 < float(peaks[labels == 1].median())
    mixed = model.sample(4, seed=0, label=[0, 1, "dark", "bright"])
    peaks = mixed.flatten(1).max(dim=1).values
    assert bool((peaks[[0, 2]] < 0.7).all() and (peaks[[1, 3]] > 0.6).all())
    assert model.interpolate(model.source.sample(2, seed=0), model.source.sample(2, seed=1), 3, "dark").shape[:2] == (
        2,
        3,
    )
    for bad in (2, -1, "grey"):
        with pytest.raises(ValueError, match="no class"):
            model.sample(3, label=bad)
    with pytest.raises(ValueError, match="or 3, one an image"):
        model.sample(3, label=[0, 1])
    with pytest.raises(ValueError, match="one map a class"):
        model.interpolate([[0.0] * 4], [[1.0] * 4])


def test_codes_far_from_the_origin_are_float32_by_class_too() -> None:
    inner = pair()
    far = Pair(lambda x: inner.encode(x) + 5000.0, lambda z: inner.decode(z - 5000.0), inner.shape)
    for by_class in (False, True):
        model = LatentOTGAN(far, og.OTGAN(generator="entropic")).fit(IMAGES, by_class=by_class)
        assert model.models[0].sample(3, seed=0).dtype == torch.float64  # float32 does not resolve them
        assert model.codes(20, seed=0).dtype == torch.float32
        assert bool(torch.isfinite(model.sample(20, seed=0)).all())


def test_classes_that_cannot_be_fitted_are_told(model: LatentOTGAN) -> None:
    with pytest.raises(DataError, match="needs images with labels"):
        LatentOTGAN(pair()).fit(IMAGES.pixels, by_class=True)
    few = Images(IMAGES.pixels[:5], torch.tensor([0, 0, 0, 0, 1]), ("a", "b"))
    with pytest.raises(DataError, match=r"at least 2 images a class, too few has 'b' \(1\)"):
        LatentOTGAN(pair()).fit(few, by_class=True)
    with pytest.raises(ValueError, match="no classes; fit it with by_class"):
        model.sample(3, label=1)
    with pytest.raises(ValueError, match="no classes"):
        model.labels(3)


# --- paths ---


def test_interpolation_goes_along_the_map(model: LatentOTGAN) -> None:
    x0, x1 = model.source.sample(3, seed=0), model.source.sample(3, seed=1)
    path = model.interpolate(x0, x1, steps=5)
    assert path.shape == (3, 5, *SHAPE)
    for at, x in ((0, x0), (4, x1), (2, (x0.double() + x1.double()) / 2)):
        assert torch.allclose(path[:, at], model.autoencoder.decode(model.model.generator(x)), atol=1e-5)
    with pytest.raises(ValueError, match="got 3 and 2"):
        model.interpolate(x0, x1[:2])
    with pytest.raises(ValueError, match="dimension 3, expected 4"):
        model.interpolate(x0[:, :3], x1)


def test_displacement_starts_at_the_source_and_ends_at_the_image(model: LatentOTGAN) -> None:
    x = model.source.sample(2, seed=0)
    path = model.displacement(x, steps=3)
    assert torch.allclose(path[:, 0], model.autoencoder.decode(x), atol=1e-5)
    assert torch.allclose(path[:, 2], model.autoencoder.decode(model.model.generator(x)), atol=1e-5)


# --- saving and continuing ---


def test_saving_and_loading(trained: LatentOTGAN, tmp_path: Path) -> None:
    again = og.load(trained.save(tmp_path / "one"))
    assert torch.equal(again.sample(20, seed=1), trained.sample(20, seed=1))
    assert repr(again) == repr(trained)
    by_class = LatentOTGAN(trained.autoencoder, og.OTGAN(generator="entropic")).fit(IMAGES, by_class=True)
    again = og.load(by_class.save(tmp_path / "two"))
    assert again.names == by_class.names
    assert torch.equal(again.sample(20, seed=1), by_class.sample(20, seed=1))
    assert torch.equal(again.sample(5, seed=1, label="dark"), by_class.sample(5, seed=1, label="dark"))


def test_functions_cannot_be_saved(model: LatentOTGAN, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Pair of functions cannot be written"):
        model.save(tmp_path)


def test_an_interrupted_fit_continues_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(folder: Path | None) -> LatentOTGAN:
        made = LatentOTGAN(Autoencoder(4, width=4, hidden=32), og.OTGAN(generator="entropic"))
        return made.fit(IMAGES, training={"steps": 40, "batch": 64, "checkpoint_every": 10}, checkpoint=folder)

    whole = fit(None)
    solve = og.OTGAN.fit

    def killed(*_: Any, **__: Any) -> og.OTGAN:
        raise MemoryError("killed")

    monkeypatch.setattr(og.OTGAN, "fit", killed)
    with pytest.raises(MemoryError):
        fit(tmp_path)
    monkeypatch.setattr(og.OTGAN, "fit", solve)
    assert torch.equal(fit(tmp_path).sample(10, seed=0), whole.sample(10, seed=0))


def test_callbacks_see_both_parts() -> None:
    seen: list[str] = []
    made = LatentOTGAN(Autoencoder(4, width=4, hidden=32), og.OTGAN(generator="entropic"))
    made.fit(IMAGES, training={"steps": 40, "batch": 64}, callback=lambda state: seen.append(type(state).__name__))
    assert {"AutoencoderState", "State"} <= set(seen)


# --- what is refused ---


def test_misuse_is_told(model: LatentOTGAN) -> None:
    with pytest.raises(TypeError, match=r"Pair\(encode, decode, shape\)"):
        LatentOTGAN(torch.nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="OTGAN"):
        LatentOTGAN(pair(), "icnn")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not been fitted yet"):
        LatentOTGAN().sample(3)
    with pytest.raises(ValueError, match="trained already"):
        LatentOTGAN(pair()).fit(IMAGES, training={"steps": 3})
    with pytest.raises(ValueError, match="was made for"):
        LatentOTGAN(pair()).fit(torch.rand(10, 1, 12, 12))
    for bad in (og.OTGAN(og.Gaussian(5)), og.OTGAN(method="magic"), og.OTGAN(tol=-1.0)):  # told before any training
        with pytest.raises(ValueError, match="dimension 5|magic|tol"):
            LatentOTGAN(Autoencoder(4, width=4, hidden=32), bad).fit(IMAGES, training={"steps": 10**9})
    with pytest.raises(ValueError, match="n must be at least 0"):
        model.sample(-1)
