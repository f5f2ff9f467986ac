"""Generators fitted to solved problems: known maps recovered, exact continuation, refusals."""

import math

import pytest
import torch
from torch import nn

import otgan as og
from otgan.generators import EntropicGenerator, NearestGenerator, NetworkGenerator, fit_generator


@pytest.fixture(scope="module")
def solved():
    """512 samples of a correlated Gaussian in three dimensions; the map to their law is linear and known."""
    source = og.Gaussian(3)
    root = torch.tensor([[1.5, 0.3, 0.0], [0.3, 0.8, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)  # SPD
    y = source.sample(512, seed=11, dtype=torch.float64) @ root + 1.0
    potential = og.solve(source, y, method="stochastic-newton", tol=0.1, seed=0).potential
    return source, root, potential


def error(generator, root, source):
    x = source.sample(4000, seed=99)
    with torch.no_grad():
        return float((generator(x).double() - (x.double() @ root + 1.0)).square().sum(1).mean())


@pytest.mark.parametrize("network", ["icnn", "mlp"])
def test_fitted_generator_is_nearer_to_the_true_map_than_what_it_was_fitted_to(solved, network):
    source, root, potential = solved
    generator = fit_generator(potential, source, network, steps=200, batch=256, pairs=20_000)
    nearest = error(NearestGenerator(potential, source), root, source)
    assert error(generator, root, source) < 0.4 * nearest
    report = generator.report
    assert report.status in ("finished", "early_stop") and math.isfinite(report.held_out)
    assert 0 < report.best_step <= 200 and report.pairs < 20_000
    assert report.loss == ("fenchel-young" if network == "icnn" else "squared")


def test_fenchel_young_does_not_shrink_as_squares_do():
    """N(0, I) to 200 of its samples in eight dimensions: E <x, T_h> < d, so least squares shrinks towards the mean."""
    source = og.Gaussian(8)
    y = source.sample(200, seed=5, dtype=torch.float64)
    y = (y - y.mean(0)) / y.std(0)
    potential = og.solve(source, y, method="stochastic-newton", tol=0.1, seed=0).potential
    x = source.sample(20_000, seed=8)
    variance = {}
    for loss in ("squared", "fenchel-young"):
        generator = fit_generator(
            potential,
            source,
            og.generators.networks.ICNN(8, width=4, depth=1),
            loss=loss,
            steps=250,
            pairs=20_000,
            lr=0.02,
        )
        variance[loss] = float(generator(x).detach().var(0).sum()) / 8
    assert variance["squared"] < 0.9
    assert variance["fenchel-young"] > variance["squared"] + 0.05


def test_convex_generator_inverts_and_its_potential_has_it_as_gradient(solved):
    source, _, potential = solved
    generator = fit_generator(potential, source, steps=60, batch=256, pairs=5000)
    x = source.sample(50, seed=3).requires_grad_()
    y = generator(x)
    (gradient,) = torch.autograd.grad(generator.value(x).sum(), x)
    assert torch.allclose(gradient, y, atol=1e-4)
    assert torch.allclose(generator.inverse(y.detach()), x.detach(), atol=1e-2)
    fenchel = generator.value(x) + generator.conjugate(y.detach()) - (x * y).sum(1)
    assert fenchel.abs().max() < 1e-3
    # Less is better, and the semi-dual of any convex function is at least the best coupling's <x, y>.
    u, fresh = generator.semi_dual(x.detach(), y.detach()), (x * y).sum(1).mean()
    assert u >= float(fresh.detach()) - 1e-3


@pytest.mark.parametrize("network", ["icnn", "mlp"])
def test_a_continued_fit_ends_as_an_uninterrupted_one(solved, network, tmp_path):
    source, _, potential = solved
    settings = dict(steps=48, batch=64, pairs=2000, checkpoint_every=8, seed=3, patience=100)
    whole = fit_generator(potential, source, network, **settings)
    for stop in (10, 30):  # one in each phase of the convex fit
        cut = fit_generator(
            potential, source, network, checkpoint=tmp_path, callback=lambda s, at=stop: s.step >= at, **settings
        )
        assert cut.report.status == "stopped" and cut.report.steps == stop
    again = fit_generator(potential, source, network, checkpoint=tmp_path, **settings)
    assert again.report.status == "finished" and again.report.steps == 48
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="another folder"):
        fit_generator(potential, source, network, checkpoint=tmp_path, **{**settings, "seed": 4})


def test_same_seed_same_generator_and_global_random_state_is_left_alone(solved):
    source, _, potential = solved
    before = torch.random.get_rng_state()
    a, b = (fit_generator(potential, source, steps=10, batch=64, pairs=2000, seed=7) for _ in range(2))
    assert torch.equal(a.sample(20, seed=1), b.sample(20, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_all_generators_come_back_from_disk(solved, tmp_path):
    source, _, potential = solved
    makers = {
        "nearest": NearestGenerator(potential, source),
        "entropic": EntropicGenerator(potential, source, reg=0.3),
        "icnn": fit_generator(potential, source, steps=5, batch=64, pairs=2000),
        "mlp": fit_generator(potential, source, "mlp", steps=5, batch=64, pairs=2000, validation=0.0),
    }
    for name, generator in makers.items():
        generator.save(tmp_path / name)
        again = og.load(tmp_path / name)
        assert type(again) is type(generator)
        assert torch.equal(again.sample(30, seed=4), generator.sample(30, seed=4))
        assert generator.sample(0, seed=0).shape == (0, 3)
    assert og.load(tmp_path / "icnn").report.steps == 5


def test_entropic_generator_defaults_to_the_rule(solved):
    source, _, potential = solved
    assert EntropicGenerator(potential, source).reg == og.generators.entropic_reg(potential, source)


def test_a_module_of_the_callers_own_is_trained(solved):
    source, root, potential = solved
    own = nn.Linear(3, 3)
    nn.init.zeros_(own.weight)
    nn.init.zeros_(own.bias)
    generator = fit_generator(potential, source, own, steps=150, batch=256, pairs=10_000, lr=0.05)
    assert isinstance(generator, NetworkGenerator) and generator.network is own
    assert error(generator, root, source) < 0.8 * error(NearestGenerator(potential, source), root, source)
    with pytest.raises(TypeError, match="state_dict"):
        generator.save("nowhere")
    with pytest.raises(TypeError, match="icnn"):
        generator.inverse(torch.zeros(1, 3))


def test_time_limit_and_interrupt_end_in_a_generator(solved):
    source, _, potential = solved
    timed = fit_generator(potential, source, steps=10**6, batch=64, pairs=2000, max_time=1.5)
    assert timed.report.status == "max_time" and timed.report.seconds < 10
    assert timed.report.loss == "fenchel-young"

    def press(state):
        raise KeyboardInterrupt

    cut = fit_generator(potential, source, steps=100, batch=64, pairs=2000, callback=press)
    assert cut.report.status == "interrupted" and torch.isfinite(cut.sample(10, seed=0)).all()


def test_overfitting_ends_early(solved):
    source, _, _ = solved
    few = og.solve(source, source.sample(40, seed=1), method="stochastic-newton", tol=0.1).potential
    generator = fit_generator(
        few, source, "mlp", steps=4000, batch=256, pairs=2000, validation=0.4, patience=3, lr=0.01
    )
    assert generator.report.status == "early_stop" and generator.report.best_step < 2000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(network="gan"), "network"),
        (dict(network="mlp", loss="fenchel-young"), "convex"),
        (dict(loss="l1"), "loss"),
        (dict(steps=0), "steps"),
        (dict(validation=0.9), "validation"),
        (dict(network=nn.ReLU()), "no parameter"),
        (dict(lr=-1.0), "lr"),
    ],
)
def test_refusals_are_sentences(solved, settings, words):
    source, _, potential = solved
    with pytest.raises(ValueError, match=words):
        fit_generator(potential, source, **settings)


def test_a_source_of_another_dimension_is_refused(solved):
    with pytest.raises(ValueError, match="dimension"):
        fit_generator(solved[2], og.Gaussian(2))


def test_a_potential_of_another_cost_is_refused():
    solved = og.solve(og.Gaussian(1), torch.arange(3.0)[:, None], "adam", p=3, tol=0.5, seed=0)
    with pytest.raises(TypeError, match="BrenierPotential"):
        fit_generator(solved.potential, og.Gaussian(1))


def test_divergence_is_said(solved):
    source, _, potential = solved
    with pytest.raises(RuntimeError, match="lower lr"):
        fit_generator(potential, source, steps=400, batch=64, pairs=2000, lr=1e25)
