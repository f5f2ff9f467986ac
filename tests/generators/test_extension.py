"""The extension between cells: modes stay apart, one hump stays whole, nothing depends on units."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, cKDTree

import otgan as og
from otgan.generators import ExtensionGenerator
from otgan.generators._facets import dihedral, singular_threshold, unit_normals


def solved(points, source=None, **settings):
    source = og.Gaussian(points.shape[1]) if source is None else source
    return og.solve(source, points, seed=0, **settings).potential, source


def spread(points, centres):
    """Distance to the nearest centre, and which it is."""
    return cKDTree(centres).query(np.asarray(points))


def copies(samples, points, tol=1e-6):
    return float((cKDTree(points).query(samples.numpy())[0] < tol).mean())


@pytest.fixture(scope="module")
def two():
    """Two discs of radius 0.2 around (-2, 0) and (2, 0), 150 targets each."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 300), 0.2 * rng.random(300) ** 0.5
    points = np.c_[radius * np.cos(angle), radius * np.sin(angle)]
    points[:, 0] += np.where(np.arange(300) < 150, -2.0, 2.0)
    return points, *solved(points)


# ------------------------------------------------------------------- angles


def test_dihedral_angle_is_the_formula_in_standard_coordinates():
    rng = np.random.default_rng(1)
    y, b = rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2] + 7.0, rng.random(40)
    u = og.BrenierPotential(y, np.zeros(40), b)
    b = b / b.sum()
    z = y - b @ y
    z = z / np.sqrt(b @ (z**2).sum(1) / 3)
    lift = np.sqrt((z**2).sum(1) + 1)
    expected = np.arccos(np.clip((z @ z.T + 1) / lift[:, None] / lift, -1, 1))
    normals = unit_normals(u)
    found = dihedral(normals[:, None], normals[None]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_facets_are_those_of_the_exact_diagram(two):
    from otgan.cells.planar import power_polygons

    _, u, source = two
    box = 12.0 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    soup = power_polygons(u.points.double().numpy(), u.heights.numpy(), box)
    exact = {tuple(sorted(p)) for p in zip(soup.owner.tolist(), soup.neighbour.tolist(), strict=True) if p[1] >= 0}
    facets = ExtensionGenerator(u, source).facets
    found = {tuple(p) for p in facets.pairs.tolist()}
    assert found <= exact
    assert len(found) > 0.8 * len(exact)
    left = u.points[:, 0] < 0
    between = {(i, j) for i, j in exact if left[i] != left[j]}
    assert len(between & found) > 0.8 * len(between)
    assert int(facets.counts.sum()) == facets.samples


def test_singular_facets_are_those_between_the_discs_and_their_points_lie_on_them(two):
    points, u, source = two
    generator = ExtensionGenerator(u, source)
    singular = generator.singular_facets()
    side = torch.from_numpy(points[:, 0] > 0)
    across = side[generator.facets.pairs].sum(1) == 1
    assert len(singular) > 15
    assert torch.equal(singular.pairs, generator.facets.pairs[across])
    assert torch.equal(generator.component, generator.component[[0, 150]][side.long()])
    assert bool((singular.angles > generator.threshold).all())
    best = u.top_k(singular.points, 3)
    assert torch.equal(best.index[:, :2].sort(1).values, singular.pairs)
    assert float((best.value[:, 0] - best.value[:, 1]).max()) < 1e-9


@pytest.mark.parametrize(("seed", "dim"), [(0, 1), (1, 2), (2, 8)])
def test_one_hump_has_no_threshold_and_a_second_one_has(seed, dim):
    """Distances between points of one Gaussian; then as many again, three times the largest away."""
    rng = np.random.default_rng(seed)
    one = torch.from_numpy(np.sqrt(rng.chisquare(dim, 3000)))
    assert singular_threshold(one, 600) == math.inf
    top = float(one.max())
    found = singular_threshold(torch.cat([one, 3 * top + one[:20]]), 600)
    assert top < found < 3 * top


def test_lowest_of_several_valleys_is_taken():
    hump = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1.0
    several = torch.cat([0.01 * hump, 0.2 * hump[:100], 1.0 + 0.4 * hump[:200]])
    assert 0.02 < singular_threshold(several, 300) < 0.2
    assert singular_threshold(torch.cat([1e-5 * hump[:50], 0.1 * hump]), 300) == math.inf  # near-duplicates only


# ---------------------------------------------------------------------- map


def test_no_sample_falls_between_two_discs_unless_nothing_is_singular(two):
    _, u, source = two
    centres = np.array([[-2.0, 0.0], [2.0, 0.0]])
    generator = ExtensionGenerator(u, source)
    away, mode = spread(generator.sample(20_000, seed=1), centres)
    assert away.max() <= 0.2 + 1e-6
    assert abs(mode.mean() - 0.5) < 0.02
    mixed = ExtensionGenerator(u, source, threshold=math.inf, facets=generator.facets)
    assert len(mixed.singular_facets()) == 0
    assert (spread(mixed.sample(200_000, seed=1), centres)[0] > 0.4).sum() > 20
    # Seen from one disc the other is at a singular angle, however large the list of candidates is.
    wide = ExtensionGenerator(u, source, neighbours=250, facets=generator.facets)
    assert spread(wide.sample(2000, seed=1), centres)[0].max() <= 0.2 + 1e-6


def test_a_chain_of_regular_facets_does_not_mix_its_ends():
    """Targets on three quarters of a circle: one component, and no sample in the hole."""
    angle = np.linspace(0, 1.5 * np.pi, 300)
    rng = np.random.default_rng(0)
    points = np.c_[np.cos(angle), np.sin(angle)] + 0.02 * rng.normal(size=(300, 2))
    u, source = solved(points)
    generator = ExtensionGenerator(u, source, threshold=0.3)
    assert len(generator.component.unique()) == 1
    assert len(generator.singular_facets()) > 0
    radius = generator.sample(10_000, seed=0).norm(dim=1)
    assert float(radius.min()) > 0.85
    mixed = ExtensionGenerator(u, source, threshold=math.inf, facets=generator.facets)
    assert float(mixed.sample(10_000, seed=0).norm(dim=1).min()) < 0.8


def test_convex_blob_is_whole_and_samples_are_new_points_inside_its_hull():
    points = og.UniformBall(2).sample(800, seed=3, dtype=torch.float64).numpy()
    u, source = solved(points)
    generator = ExtensionGenerator(u, source)
    assert generator.threshold == math.inf or len(generator.singular_facets()) < 0.01 * len(generator.facets)
    assert len(generator.component.unique()) < 0.02 * 800
    samples = generator.sample(5000, seed=1)
    assert copies(samples, points) < 0.001
    hull = ConvexHull(points).equations
    assert (samples.double().numpy() @ hull[:, :2].T + hull[:, 2]).max() < 1e-6
    assert float(samples.var(0).sum()) > 0.95 * points.var(0).sum()


def test_map_is_continuous_inside_a_component_and_between_the_best_targets(two):
    _, u, source = two
    generator = ExtensionGenerator(u, source)
    start = torch.tensor([[0.5, -1.5]], dtype=torch.float64)
    steps = torch.linspace(0, 1, 40_001, dtype=torch.float64)[:, None]
    path = generator(start + steps * torch.tensor([[0.7, 3.0]], dtype=torch.float64))
    assert len(u.assign(start + steps * torch.tensor([[0.7, 3.0]], dtype=torch.float64)).unique()) > 10
    assert float((path[1:] - path[:-1]).norm(dim=1).max()) < 2e-3
    # On the line with k = 3 a boundary between two cells goes to the middle of their targets.
    line = og.BrenierPotential([[0.0], [1.0], [2.0], [3.0]], [0.0, -0.5, -2.0, -4.5])
    middle = ExtensionGenerator(line, og.Gaussian([1.5], [[1.0]]), threshold=math.inf)
    torch.testing.assert_close(middle([[1.5], [1.0]]), torch.tensor([[1.5], [1.0]], dtype=torch.float64))


def test_ring_of_eight_gaussians_in_full_size():
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.c_[np.cos(angle), np.sin(angle)]
    rng = np.random.default_rng(0)
    points = centres[rng.integers(8, size=2500)] + 0.01 * rng.normal(size=(2500, 2))
    u, source = solved(points)
    generator = ExtensionGenerator(u, source)
    assert len(generator.component.unique()) == 8
    samples = generator.sample(10_000, seed=1)
    away, mode = spread(samples, centres)
    assert (away < 0.03).mean() >= 0.99
    assert away.max() < 0.06
    shares = np.bincount(mode, minlength=8) / 10_000
    assert np.abs(shares - 1 / 8).max() < 0.02
    assert copies(samples, points) < 0.01


def test_mixture_in_eight_dimensions():
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(5, 8))
    label = rng.integers(5, size=600)
    points = centres[label] + 0.3 * rng.normal(size=(600, 8))
    u, source = solved(points, method="stochastic-newton", tol=0.1)
    generator = ExtensionGenerator(u, source)
    assert len(generator.component.unique()) == 5
    away, mode = spread(generator.sample(4000, seed=1), centres)
    assert away.max() <= np.linalg.norm(points - centres[label], axis=1).max()
    assert np.abs(np.bincount(mode, minlength=5) / 4000 - np.bincount(label) / 600).max() < 0.03
    assert copies(generator.sample(2000, seed=2), points) < 0.05
    mixed = ExtensionGenerator(u, source, threshold=math.inf, facets=generator.facets)
    assert (spread(mixed.sample(4000, seed=1), centres)[0] > away.max()).mean() > 0.01


def test_shift_and_scale_of_the_targets_carry_over(two):
    points, u, source = two
    generator = ExtensionGenerator(u, source)
    x = source.sample(2000, seed=5, dtype=torch.float64)
    for scale, shift in ((1e-3, 0.0), (50.0, 1e4)):
        moved = ExtensionGenerator(og.BrenierPotential(scale * points + shift, scale * u.heights), source)
        assert moved.threshold == pytest.approx(generator.threshold, rel=1e-5)
        assert torch.equal(moved.component, generator.component)
        torch.testing.assert_close((moved(x) - shift) / scale, generator(x).double(), rtol=0, atol=1e-6)


# ------------------------------------------------------------------ the rest


def test_it_comes_back_from_disk_and_in_a_model(two, tmp_path):
    points, u, source = two
    for name, threshold in (("chosen", None), ("none", math.inf)):
        generator = ExtensionGenerator(u, source, neighbours=6, threshold=threshold, seed=3)
        generator.save(tmp_path / name)
        again = og.load(tmp_path / name)
        assert isinstance(again, ExtensionGenerator)
        assert (again.threshold, again.neighbours) == (generator.threshold, 6)
        assert torch.equal(again.sample(500, seed=4), generator.sample(500, seed=4))
        assert torch.equal(again.singular_facets().points, generator.singular_facets().points)
        assert generator.sample(0, seed=0).shape == (0, 2)
    model = og.OTGAN(generator="extension", fit={"neighbours": 3}).fit(points)
    model.save(tmp_path / "model")
    again = og.load(tmp_path / "model")
    assert again.kind == "extension" and again.generator.neighbours == 3
    assert torch.equal(again.sample(50, seed=1), model.sample(50, seed=1))


def test_same_seed_same_facets_and_the_gradient_reaches_x(two):
    _, u, source = two
    before = torch.random.get_rng_state()
    a, b = (ExtensionGenerator(u, source, samples=5000, seed=9).facets for _ in range(2))
    assert torch.equal(a.pairs, b.pairs) and torch.equal(a.counts, b.counts) and torch.equal(a.nearest, b.nearest)
    assert torch.equal(before, torch.random.get_rng_state())
    x = torch.tensor([[0.7, 0.2], [-0.5, 0.1]], dtype=torch.float64, requires_grad=True)
    generator = ExtensionGenerator(u, source, samples=5000)
    (slope,) = torch.autograd.grad(generator(x)[:, 0].sum(), x)
    step = torch.tensor([[1e-6, 0.0]], dtype=torch.float64)
    finite = (generator(x + step) - generator(x - step))[:, 0] / 2e-6
    torch.testing.assert_close(slope[:, 0], finite.detach(), rtol=1e-4, atol=1e-6)


def test_memory_stays_in_blocks_and_blocks_change_nothing(two, monkeypatch):
    from otgan.generators import _facets, extension

    _, u, source = two
    x = source.sample(1000, seed=2)
    whole = ExtensionGenerator(u, source, samples=3000)
    monkeypatch.setattr(extension, "_NUMBERS", 100)
    assert torch.equal(ExtensionGenerator(u, source, facets=whole.facets)(x), whole(x))
    monkeypatch.setattr(_facets, "_BLOCK", 1000)
    cut = ExtensionGenerator(u, source, samples=3000)
    assert int(cut.facets.counts.sum()) == 3000
    assert (
        u.top_k(cut.singular_facets().points, 2).index.sort(1).values.tolist() == cut.singular_facets().pairs.tolist()
    )


def test_few_targets_and_targets_switched_off():
    for n in (1, 2, 3):
        u = og.BrenierPotential(torch.eye(4, 2)[:n], torch.zeros(n))
        samples = ExtensionGenerator(u, og.Gaussian(2), samples=1000).sample(50, seed=0)
        assert torch.isfinite(samples).all()
    off = og.BrenierPotential([[0.0], [1.0], [9.0]], [0.0, -0.5, -math.inf])
    generator = ExtensionGenerator(off, og.Gaussian(1), samples=1000)
    assert generator.facets.pairs.tolist() == [[0, 1]]
    assert float(generator.sample(100, seed=0).max()) <= 1.0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"neighbours": 1}, ValueError, "neighbours must be at least 2"),
        ({"neighbours": 2.5}, TypeError, "neighbours"),
        ({"threshold": 0.0}, ValueError, "threshold"),
        ({"threshold": math.nan}, ValueError, "threshold"),
        ({"samples": 0}, ValueError, "samples"),
        ({"seed": -1}, ValueError, "seed"),
        ({"source": og.Gaussian(3)}, ValueError, "dimension 3, the potential 2"),
        ({"potential": og.KantorovichPotential(np.eye(2), np.zeros(2), p=3.0)}, TypeError, "p = 2"),
    ],
)
def test_refusals(two, settings, error, message):
    _, u, source = two
    with pytest.raises(error, match=message):
        ExtensionGenerator(**{"potential": u, "source": source, "samples": 100, **settings})


def test_facets_of_other_targets_are_refused(two):
    _, u, source = two
    facets = ExtensionGenerator(u, source, samples=100).facets
    with pytest.raises(ValueError, match="leave facets out"):
        ExtensionGenerator(og.BrenierPotential(np.eye(2), np.zeros(2)), source, facets=facets)
    with pytest.raises(ValueError, match="leave one out"):
        ExtensionGenerator(u, source, facets=facets, samples=100)
    with pytest.raises(ValueError, match="expected 2"):
        ExtensionGenerator(u, source, facets=facets)(torch.zeros(1, 3))
