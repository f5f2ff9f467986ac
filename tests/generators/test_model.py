"""The model: one solve for generator and critic, exact continuation, known distances, the choice of a generator."""

import math

import numpy as np
import pytest
import torch

import otgan as og
from otgan.generators import EntropicGenerator, LocalGenerator, NetworkGenerator, held_out_score
from otgan.generators.fit import as_network
from otgan.generators.model import GENERATORS
from otgan.generators.selection import noise_floor
from otgan.kernels import dispatch

QUICK = {"steps": 40, "batch": 128, "patience": 100}


@pytest.fixture(scope="module")
def data():
    """1,000 samples of a correlated Gaussian in six dimensions."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(1000, 6)) @ (np.eye(6) + 0.2 * rng.normal(size=(6, 6))) + 1.0


@pytest.fixture(scope="module")
def model(data):
    return og.OTGAN(generator="icnn", fit=QUICK, tol=0.1).fit(data)


class Counted:
    """Calls of each kernel, and the scores that they computed."""

    def __init__(self, monkeypatch):
        self.calls, self.scores = {}, 0
        inner = dispatch.call

        def call(operation, x, y, *args, **named):
            self.calls[operation] = self.calls.get(operation, 0) + 1
            self.scores += len(x) * len(y)
            return inner(operation, x, y, *args, **named)

        monkeypatch.setattr(og.kernels, "call", call)


def test_generator_and_critic_cost_no_score_beyond_the_solve(data, monkeypatch):
    """One assign a batch serves potential and generator: the pairs are those that the solver counted."""
    count = Counted(monkeypatch)
    og.solve(og.Gaussian(6), data, "stochastic-newton", tol=0.1, seed=5)
    alone, scores = dict(count.calls), count.scores
    assert alone["assign"] > 3 and scores > 1000 * 10_000
    count.calls.clear()
    count.scores = 0
    model = og.OTGAN(generator="icnn", method="stochastic-newton", tol=0.1, seed=5, fit=QUICK).fit(data)
    assert count.calls == alone and count.scores == scores
    assert model.generator.report.pairs >= 4 * 900


def test_pairs_are_drawn_where_the_solver_shows_none(monkeypatch):
    y = np.random.default_rng(0).normal(size=(60, 2))
    model = og.OTGAN(generator="mlp", fit={**QUICK, "pairs": 3000}).fit(y)
    assert model.result.method == "newton" and 2000 < model.generator.report.pairs <= 3000
    assert torch.isfinite(model.sample(100, seed=0)).all()


def test_same_seed_same_samples(data, model):
    again = og.OTGAN(generator="icnn", fit=QUICK, tol=0.1).fit(data)
    assert torch.equal(again.sample(50, seed=1), model.sample(50, seed=1))
    assert not torch.equal(model.sample(50, seed=1), model.sample(50, seed=2))
    other = og.OTGAN(generator="icnn", fit=QUICK, tol=0.1, seed=1).fit(data)
    assert not torch.equal(other.sample(50, seed=1), model.sample(50, seed=1))


@pytest.mark.parametrize("kind", GENERATORS)
def test_every_kind_comes_back_from_disk(kind, tmp_path):
    y = np.random.default_rng(1).normal(size=(250, 2))
    settings = {**QUICK, "pairs": 2000} if kind in ("auto", "icnn", "mlp") else {}
    model = og.OTGAN(generator=kind, fit=settings).fit(y)
    model.save(tmp_path / "model")
    again = og.load(tmp_path / "model")
    assert torch.equal(again.sample(40, seed=2), model.sample(40, seed=2))
    x = torch.randn(30, 2, dtype=torch.float64)
    assert torch.equal(again.critic(x), model.critic(x))
    assert again.distance == model.distance and again.scores == model.scores
    assert bool(model.scores) == (kind == "auto")


def test_a_continued_fit_ends_as_an_uninterrupted_one(data, tmp_path):
    """Stopped once in the solve and once in the fit; what was saved of neither is lost or mixed up."""
    settings = dict(generator="icnn", method="stochastic-newton", tol=0.05, seed=2)
    fit = {**QUICK, "checkpoint_every": 8}
    whole = og.OTGAN(**settings, fit=fit).fit(data)
    seen = []

    def in_solve(state):
        seen.append(state)
        return hasattr(state, "n_iter") and state.detail.get("phase") == "streaming" and state.n_iter > 12

    cut = og.OTGAN(**settings, fit=fit).fit(data, checkpoint=tmp_path, callback=in_solve)
    assert cut.result.status == "stopped" and not (tmp_path / "generator").exists()
    cut = og.OTGAN(**settings, fit=fit).fit(
        data, checkpoint=tmp_path, callback=lambda s: hasattr(s, "step") and s.step >= 20
    )
    assert cut.generator.report.status == "stopped" and (tmp_path / "generator").exists()
    again = og.OTGAN(**settings, fit=fit).fit(data, checkpoint=tmp_path)
    assert torch.equal(again.potential.heights, whole.potential.heights)
    assert again.generator.report.steps == whole.generator.report.steps
    assert torch.equal(again.sample(100, seed=7), whole.sample(100, seed=7))


def test_max_time_bounds_both_parts(data):
    model = og.OTGAN(generator="icnn", tol=1e-6, fit={"steps": 10**6}).fit(data, max_time=3.0)
    assert model.result.status == "max_time" and model.generator.report.status == "max_time"
    assert model.result.seconds + model.generator.report.seconds < 8.0
    assert torch.isfinite(model.sample(20, seed=0)).all()


def test_weights_are_those_of_the_data():
    rng = np.random.default_rng(4)
    y = np.concatenate([rng.normal(size=(60, 2)) - 6, rng.normal(size=(60, 2)) + 6])
    b = np.repeat([0.1, 0.9], 60)
    model = og.OTGAN(generator="nearest").fit(y, b)
    share = float((model.sample(20_000, seed=0)[:, 0] > 0).double().mean())
    assert abs(share - 0.9) < 4 * math.sqrt(0.09 / 20_000)
    assert og.OTGAN(generator="nearest").fit(og.DiscreteMeasure(y, b)).distance == model.distance


def test_critic_is_the_kantorovich_potential(data, model):
    x = model.result.source.sample(4000, seed=9, dtype=torch.float64).requires_grad_()
    phi = model.critic(x)
    (gradient,) = torch.autograd.grad(phi.sum(), x)
    assert torch.allclose(gradient, (x - model.potential.transport(x)).detach(), atol=1e-9)
    # phi(y_i) + psi_i <= 0 makes the separation at least the dual, which is W2^2/2 here up to tol.
    separation = float(phi.detach().mean() - model.critic(torch.from_numpy(data)).mean())
    noise = 4 * float(phi.detach().std()) / math.sqrt(len(x))
    assert separation + noise >= 0.5 * model.distance.lower**2


def test_data_critic_tends_to_the_dual_at_the_targets():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(50, 2))
    model = og.OTGAN(generator="nearest").fit(y)
    psi = model.potential.dual("half-sqeuclidean")
    points = model.potential.points
    few, many = (model.data_critic(points, samples=m) - psi for m in (500, 50_000))
    assert few.min() > -1e-9 and many.min() > -1e-9  # a minimum over samples of the cell, never below that over all
    assert many.mean() < 0.01 and many.mean() < few.mean()
    x = model.result.source.sample(300, seed=1, dtype=torch.float64)
    cost = 0.5 * torch.cdist(x, x + 0.5).square()
    gap = cost - model.critic(x)[:, None] - model.data_critic(x + 0.5, samples=50_000)[None]
    assert gap.min() > -0.05  # weak duality off the targets, up to the samples of the c-transform


def test_critic_and_distance_of_a_planted_problem():
    """Targets and heights are chosen, the masses follow: the potential is known up to a constant."""
    source, rng = og.Gaussian(6), np.random.default_rng(8)
    y, h = torch.from_numpy(rng.normal(size=(60, 6))), torch.from_numpy(0.3 * rng.normal(size=60))
    planted = og.BrenierPotential(y, h)
    x = source.sample(400_000, seed=77, dtype=torch.float64)
    counts = torch.bincount(planted.assign(x), minlength=60)
    kept = counts > 100
    b = counts[kept].double() / counts[kept].sum()
    heights = torch.where(kept, h, -torch.inf)
    planted = og.BrenierPotential(y, heights)
    model = og.OTGAN(generator="nearest", method="stochastic-newton", tol=1e-3).fit(y[kept], b)
    fresh = source.sample(20_000, seed=78, dtype=torch.float64)
    pair = torch.stack([model.critic(fresh), planted.kantorovich(fresh)])
    assert torch.corrcoef(pair)[0, 1] > 0.99
    truth = math.sqrt(float((x - planted.transport(x)).square().sum(1).mean()))
    low, high = model.distance.lower, model.distance.upper
    assert low - 0.01 <= truth <= high + 0.01 and low <= model.distance.value <= high
    assert high - low < 0.1 * truth


def test_distance_of_slabs_is_the_closed_form():
    """U([0,1]^2) to n points ((j - 1/2)/n, 1/2): W2^2 = 1/(12 n^2) + 1/12."""
    n = 8
    y = np.stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5)], axis=1)
    model = og.OTGAN(og.UniformBox(dim=2), "nearest").fit(y)
    truth = math.sqrt(1 / (12 * n * n) + 1 / 12)
    assert model.distance.lower - 1e-9 <= truth <= model.distance.upper + 1e-9
    assert model.distance.value == pytest.approx(truth, rel=1e-4)


def ring(n, seed):
    """Eight Gaussians of deviation 0.02 on the unit circle."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * rng.normal(size=(n, 2))


def test_auto_keeps_separate_modes_apart_and_copies_nothing():
    y, centres = ring(1500, 0), ring(0, 0)
    centres = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    model = og.OTGAN(fit={**QUICK, "pairs": 4000}).fit(y)
    assert isinstance(model.generator, LocalGenerator) and set(model.scores) == {"local", "entropic"}
    new = model.sample(2500, seed=1)
    modes = og.metrics.count_modes(new, centres, 0.02)
    assert modes.captured == 8 and modes.high_quality > 0.98 and modes.reverse_kl < 0.01
    rule = EntropicGenerator(model.potential, model.result.source)
    assert og.metrics.count_modes(rule.sample(2500, seed=1), centres, 0.02).high_quality < modes.high_quality
    assert og.metrics.authenticity(new, y) > 0.3  # copies have 0, fresh points of the plane 0.38


def test_auto_fits_the_network_only_where_nothing_cheaper_is_as_good_as_data(data, monkeypatch):
    settings = {"steps": 150, "batch": 256}
    model = og.OTGAN(fit=settings, tol=0.1).fit(data)
    assert isinstance(model.generator, LocalGenerator) and set(model.scores) == {"local", "entropic"}
    floor = noise_floor(torch.from_numpy(data[:100]), torch.from_numpy(data[100:]))
    assert model.scores["local"].total < floor
    monkeypatch.setattr("otgan.generators._choice.noise_floor", lambda *_: 0.0)
    model = og.OTGAN(fit=settings, tol=0.1).fit(data)
    kinds = {"local": LocalGenerator, "entropic": EntropicGenerator, "icnn": NetworkGenerator}
    assert set(model.scores) == set(kinds)
    best = min(model.scores, key=lambda name: model.scores[name].total)
    assert isinstance(model.generator, kinds[best])
    assert model.scores["icnn"].total < model.scores["entropic"].total


def test_auto_with_few_points_is_the_rule():
    model = og.OTGAN().fit(np.random.default_rng(0).normal(size=(30, 2)))
    assert isinstance(model.generator, EntropicGenerator) and model.scores == {}


def test_score_finds_copies_blurs_and_lost_modes():
    train, held, fresh = (torch.from_numpy(ring(n, seed)) for n, seed in ((1000, 1), (500, 2), (2000, 3)))
    good = held_out_score(fresh, held, train)
    assert good.total < 0.12
    assert held_out_score(train, held, train).reach > 0.9
    between = torch.cat([fresh[:1800], 0.5 * fresh[1800:]])
    assert held_out_score(between, held, train).stray == pytest.approx(0.1, abs=0.03)
    lost = fresh[fresh[:, 0] > -0.5]
    assert held_out_score(lost, held, train).law > good.law + 0.1


def test_select_refuses(data, model):
    for named, words in ((dict(held_out=data[:1]), "at least 2"), (dict(held_out=data, regs=[]), "empty")):
        with pytest.raises(ValueError, match=words):
            EntropicGenerator.select(model.potential, model.result.source, **named)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (dict(source="gaussian"), TypeError, "measure"),
        (dict(generator="gan"), ValueError, "generator"),
        (dict(seed=-1), ValueError, "seed"),
        (dict(fit={"stepps": 3}), ValueError, "stepps"),
        (dict(fit={"pairs": 0}), ValueError, "pairs"),
        (dict(generator="entropic", fit={"steps": 3}), ValueError, "it knows reg"),
        (dict(generator="nearest", fit={"reg": 3}), ValueError, "none"),
    ],
)
def test_refusals_before_anything_is_solved(settings, error, words):
    with pytest.raises(error, match=words):
        og.OTGAN(**settings)


def test_a_fit_that_fails_leaves_no_half_of_an_earlier_one(monkeypatch):
    points = np.random.default_rng(0).normal(size=(40, 2))
    model = og.OTGAN(generator="nearest").fit(points)

    def fail(*args, **named):
        raise OSError("mine")

    monkeypatch.setattr("otgan.generators.model.NearestGenerator", fail)
    with pytest.raises(OSError, match="mine"):
        model.fit(points + 5.0)
    with pytest.raises(RuntimeError, match=r"model\.result"):
        model.sample(3)
    assert model.result.converged and float(model.potential.points.min()) > 0.0  # the solve of the new points


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize(("shift", "unit"), [(1e9, 1.0), (0.0, 1e-60), (0.0, 1e25), (0.0, 1e60)])
def test_samples_follow_origin_and_unit_of_the_data(kind, shift, unit):
    """Far from the origin, and beyond the range of float32."""
    y = np.random.default_rng(6).integers(-1000, 1000, size=(250, 2)) / 256.0  # exact, shifted too
    fit = {**QUICK, "pairs": 2000} if kind in ("auto", "icnn", "mlp") else {}
    expected = og.OTGAN(generator=kind, fit=fit).fit(y).sample(300, seed=1)
    got = og.OTGAN(generator=kind, fit=fit).fit(shift + unit * y).sample(300, seed=1)
    assert expected.dtype == torch.float32
    assert got.dtype == (torch.float32 if unit == 1e25 else torch.float64)
    torch.testing.assert_close((got.double() - shift) / unit, expected.double(), rtol=0.0, atol=2e-5)


def test_constants_and_coarse_targets():
    """A constant coordinate is met exactly or in float64; samples of float32 targets are no coarser than they say."""
    y = np.random.default_rng(6).normal(size=(60, 2))
    y[:, 1] = 123456789.0
    for value in (0.5, 123456789.0, 1e39):
        y[:, 1] = value
        new = og.OTGAN(generator="entropic").fit(y).sample(20, seed=0)
        assert new.dtype == (torch.float32 if value == 0.5 else torch.float64)
        torch.testing.assert_close(
            new[:, 1].double(), torch.full((20,), value, dtype=torch.float64), rtol=1e-15, atol=0
        )
    coarse = (50_000.0 + np.random.default_rng(0).normal(size=(300, 2))).astype(np.float32)
    for kind in ("local", "entropic", "extension"):
        new = og.OTGAN(generator=kind).fit(coarse).sample(50, seed=0)
        assert new.dtype == torch.float64 and not torch.equal(new, new.float().double())


def test_the_map_back_is_as_exact_far_from_the_origin():
    y = 1e9 + np.random.default_rng(0).normal(size=(300, 2))
    generator = og.OTGAN(generator="icnn", fit={**QUICK, "pairs": 2000}).fit(y).generator
    x = og.Gaussian(2).sample(20, seed=0)
    torch.testing.assert_close(generator.inverse(generator(x).detach()), x, rtol=0.0, atol=1e-2)


def test_an_interrupt_while_the_generator_is_made_keeps_the_solve(monkeypatch):
    points = np.random.default_rng(0).normal(size=(250, 2))

    def interrupt(*args, **named):
        raise KeyboardInterrupt

    assert not og.OTGAN(generator="local").fit(points).interrupted
    with monkeypatch.context() as patch:
        patch.setattr("otgan.generators.model.LocalGenerator", interrupt)
        model = og.OTGAN(generator="local").fit(points)
    assert model.interrupted and model.result.converged and isinstance(model.generator, EntropicGenerator)
    with monkeypatch.context() as patch:  # in the choice, when the local maps are there
        patch.setattr("otgan.generators._choice.EntropicGenerator.select", interrupt)
        model = og.OTGAN().fit(points)
    assert model.interrupted and isinstance(model.generator, LocalGenerator) and list(model.scores) == ["local"]


def test_a_network_of_another_shape_is_refused_before_the_solve(monkeypatch):
    points = np.random.default_rng(0).normal(size=(40, 3))
    monkeypatch.setattr("otgan.generators.model.solve", lambda *args, **named: pytest.fail("solved"))
    for network, said in (
        (torch.nn.Linear(3, 2), r"\(2, 3\) it made \(2, 2\)"),
        (torch.nn.Linear(4, 3), "fails with"),
        (torch.nn.LSTM(3, 3), "made tuple"),
    ):
        with pytest.raises(ValueError, match=said):
            og.OTGAN(generator=network).fit(points)
    norm = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    as_network(norm, 3, 0)
    assert norm.training and int(norm[0].num_batches_tracked) == 0


def test_a_loaded_model_fits_as_it_was_asked_to(tmp_path):
    points = np.random.default_rng(0).normal(size=(60, 2))
    asked = dict(generator="local", fit={"neighbours": 5.0}, method="newton", tol=1e-3, seed=4)
    asked["solver"] = {"max_iter": np.int64(40)}
    og.OTGAN(**asked).fit(points).save(tmp_path / "model")
    again = og.load(tmp_path / "model")
    names = {"generator": "kind", "fit": "settings"}
    assert {name: getattr(again, names.get(name, name)) for name in asked} == asked
    fresh = og.OTGAN(**asked).fit(points + 1.0)
    assert torch.equal(again.fit(points + 1.0).sample(9, seed=0), fresh.sample(9, seed=0))


def test_an_unfitted_model_says_so():
    model = og.OTGAN()
    assert "not fitted" in repr(model)
    for name in ("result", "generator", "potential", "distance"):
        with pytest.raises(RuntimeError, match="fit"):
            getattr(model, name)
    with pytest.raises(ValueError, match="weights"):
        model.fit(og.DiscreteMeasure([[0.0], [1.0]]), [0.5, 0.5])
    with pytest.raises(ValueError, match="dimension"):
        og.OTGAN(og.Gaussian(3)).fit(np.zeros((4, 2)) + np.arange(4)[:, None])
