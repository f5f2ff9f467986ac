"""The trainer: exact continuation, the algorithm as published, what it refuses, how runs end."""

from __future__ import annotations

import itertools
import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

import otgan as og
from otgan._interrupts import interrupts_held
from otgan.adversarial import GAN, LOSSES, MLP, PRESETS, WGAN, AdversarialModel, DCGANGenerator, Preset, train
from otgan.adversarial._data import Batches

METHODS = tuple(LOSSES)
QUICK = {"width": 16, "batch": 32, "latent": 3, "record_every": 5}


@pytest.fixture(scope="module")
def points():
    """400 points of an ellipse in the plane."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(400, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]]) + 1.0).float()


def tensors(model: AdversarialModel) -> list[torch.Tensor]:
    return [*model.generator.state_dict().values(), *model.network.state_dict().values()]


def same(a: AdversarialModel, b: AdversarialModel) -> bool:
    return all(torch.equal(s, t) for s, t in zip(tensors(a), tensors(b), strict=True))


def without_time(history: list[dict]) -> list[dict]:
    return [{k: repr(v) for k, v in row.items() if k != "seconds"} for row in history]


# --- one run ---


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_model(method, points):
    model, again, other = (train(method, points, steps=12, seed=seed, **QUICK) for seed in (3, 3, 4))
    assert same(model, again) and without_time(model.history) == without_time(again.history)
    assert not same(model, other)
    assert torch.equal(model.sample(50, seed=1), again.sample(50, seed=1))
    assert not torch.equal(model.sample(50, seed=1), model.sample(50, seed=2))
    assert model.sample(50, seed=1).shape == (50, 2) and model.sample(0).shape == (0, 2)
    assert (model.status, model.steps, len(model.history)) == ("finished", 12, 3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_the_law_nearer(method, points):
    faster = {"wgan": {"lr": 1e-3, "clip": 0.1}}.get(method, {"lr": 2e-3, "critic_lr": 2e-3})
    settings = {**QUICK, "width": 64, "batch": 64, **faster}
    model = train(method, points, steps=400, critic_steps=3, seed=0, ema=0.9, **settings)
    start = train(method, points, steps=1, seed=0, **settings)
    before, after = (og.metrics.energy(m.sample(400, seed=9), points) for m in (start, model))
    assert after < 0.25 * before


def test_global_random_state_is_left_alone(points):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train("wgan-gp", points, steps=3, **QUICK).sample(5)
    assert torch.equal(before, torch.get_rng_state())


def test_algorithm_1_by_hand(points):
    """k ascents of V and one descent of the generator, SGD, written out."""
    settings = dict(optimizer="sgd", lr=0.1, critic_lr=0.2, critic_steps=3, steps=4, **QUICK)
    model = train(GAN(saturating=True), points, preset="toy", seed=7, **settings)
    g, d = MLP(3, 2, 16, 2, seed=7), MLP(2, 1, 16, 1, scores=True, seed=8)
    batches, stream = Batches(points, 32, 7), torch.Generator().manual_seed(7)
    drawn = itertools.count()
    for _ in range(4):
        for _ in range(3):
            x, z = batches[next(drawn)], torch.randn(32, 3, generator=stream)
            value = torch.sigmoid(d(x)).log().mean() + (1 - torch.sigmoid(d(g(z)))).log().mean()
            for p, gradient in zip(d.parameters(), torch.autograd.grad(value, d.parameters()), strict=True):
                p.data += 0.2 * gradient
        loss = (1 - torch.sigmoid(d(g(torch.randn(32, 3, generator=stream))))).log().mean()
        for p, gradient in zip(g.parameters(), torch.autograd.grad(loss, g.parameters()), strict=True):
            p.data -= 0.1 * gradient
    for found, wanted in zip(tensors(model), [*g.parameters(), *d.parameters()], strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


def test_the_average_is_that_of_the_steps(points):
    """Constant factor after the warm-up: mean_k = f mean_{k-1} + (1 - f) w_k, f = min(ema, k / (k + 9))."""
    seen = []
    train(
        "gan",
        points,
        steps=30,
        callback=lambda s: seen.append([p.clone() for p in s.model.generator.parameters()]) and 0,
        **QUICK,
    )
    mean = [p.clone() for p in train_start(points)]
    for k, now in enumerate(seen, 1):
        keep = min(0.6, k / (k + 9))
        mean = [keep * m + (1 - keep) * w for m, w in zip(mean, now, strict=True)]
    averaged = train("gan", points, steps=30, ema=0.6, **QUICK)
    for found, wanted in zip(averaged.generator.parameters(), mean, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def train_start(points):
    """The generator's weights before the first step."""
    return MLP(3, 2, 16, 2, seed=0).parameters()


# --- continuation ---


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("method", METHODS)
def test_a_continued_run_ends_as_an_uninterrupted_one(method, ema, points, tmp_path):
    settings = {**QUICK, "seed": 2, "ema": ema}
    whole = train(method, points, steps=31, **settings)
    for stop in (4, 13, 20):  # in the middle of a row of the history, of an epoch, and at the end of a row
        cut = train(
            method, points, steps=31, checkpoint=tmp_path, callback=lambda s, stop=stop: s.step >= stop, **settings
        )
        assert (cut.status, cut.steps) == ("stopped", stop)
    again = train(method, points, steps=31, checkpoint=tmp_path, **settings)
    assert same(whole, again) and without_time(whole.history) == without_time(again.history)
    assert torch.equal(whole.sample(20, seed=0), again.sample(20, seed=0))
    done = train(method, points, steps=31, checkpoint=tmp_path, **settings)
    assert same(whole, done) and done.status == "finished"
    longer = train(method, points, steps=37, checkpoint=tmp_path, **settings)
    assert same(longer, train(method, points, steps=37, **settings))


def test_images_with_batch_normalisation_are_continued_too(tmp_path):
    images = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    settings = dict(batch=8, width=4, latent=5, record_every=2, ema=0.5)
    whole = train("gan", images, steps=5, **settings)
    train("gan", images, steps=3, checkpoint=tmp_path, **settings)
    again = train("gan", images, steps=5, checkpoint=tmp_path, **settings)
    assert same(whole, again)
    new = again.sample(6, seed=1)
    assert new.shape == (6, 1, 28, 28) and 0 <= new.min() and new.max() <= 1


def test_a_checkpoint_of_another_run_is_refused(points, tmp_path):
    train("wgan", points, steps=3, checkpoint=tmp_path, **QUICK)
    for changed in ({"seed": 1}, {"clip": 0.02}, {"ema": 0.5}, {"critic_steps": 2}):
        with pytest.raises(ValueError, match="another run"):
            train("wgan", points, steps=3, checkpoint=tmp_path, **{**QUICK, **changed})
    with pytest.raises(ValueError, match="another run"):
        train("wgan", points + 1, steps=3, checkpoint=tmp_path, **QUICK)


def test_saved_while_it_runs(points, tmp_path):
    """Every row is a chance to save; a run that dies afterwards goes on from there."""

    def die(state):
        if state.step == 17:
            raise OSError("no more")

    settings = {**QUICK, "checkpoint": tmp_path, "checkpoint_every": 1e-9}
    with pytest.raises(OSError, match="no more"):
        train("gan", points, steps=25, callback=die, **settings)
    steps = []
    again = train("gan", points, steps=25, callback=lambda s: steps.append(s.step) and 0, **settings)
    assert steps[0] == 16 and same(again, train("gan", points, steps=25, **QUICK))


# --- how runs end ---


def test_interrupt_leaves_a_usable_model_and_its_progress(points, tmp_path):
    def press(state):
        if state.step == 7:
            raise KeyboardInterrupt

    model = train("wgan-gp", points, steps=20, callback=press, checkpoint=tmp_path, **QUICK)
    assert (model.status, model.steps) == ("interrupted", 7)
    assert torch.isfinite(model.sample(10, seed=0)).all() and torch.isfinite(model.critic(points)).all()
    assert same(
        train("wgan-gp", points, steps=20, checkpoint=tmp_path, **QUICK), train("wgan-gp", points, steps=20, **QUICK)
    )


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, whatever the shell has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_within_a_step_waits_for_its_end(points, tmp_path, ctrl_c):
    class Pressed(WGAN):
        calls = 0

        def generator_loss(self, fake):
            Pressed.calls += 1
            if Pressed.calls == 9:
                signal.raise_signal(signal.SIGINT)
            return super().generator_loss(fake)

    handler = signal.getsignal(signal.SIGINT)
    model = train(Pressed(), points, steps=20, checkpoint=tmp_path, **QUICK)
    assert (model.status, model.steps) == ("interrupted", 9)
    again = train(Pressed(), points, steps=20, checkpoint=tmp_path, **QUICK)
    assert Pressed.calls == 20 and signal.getsignal(signal.SIGINT) is handler
    assert same(again, train("wgan", points, steps=20, **QUICK))


def test_a_second_ctrl_c_breaks_in(ctrl_c):
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        done.append("first")
        signal.raise_signal(signal.SIGINT)
        done.append("second")
    assert done == ["first"]


def test_an_interrupt_within_a_step_saves_nothing(points, tmp_path):
    class Pressed(WGAN):
        calls = 0

        def generator_loss(self, fake):
            Pressed.calls += 1
            if Pressed.calls == 9:
                raise KeyboardInterrupt
            return super().generator_loss(fake)

    model = train(Pressed(), points, steps=20, checkpoint=tmp_path / "a", **QUICK)
    assert model.status == "interrupted" and model.steps == 8 and not (tmp_path / "a").exists()
    assert torch.isfinite(model.sample(10, seed=0)).all()


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_state(points, tmp_path):
    class Broken(GAN):
        steps = 0

        def generator_loss(self, fake):
            Broken.steps += 1
            loss = super().generator_loss(fake)
            return loss * math.nan if Broken.steps > 12 else loss

    with pytest.warns(RuntimeWarning, match="Lower lr"):
        model = train(Broken(), points, steps=40, checkpoint=tmp_path, checkpoint_every=1e-9, **QUICK)
    assert (model.status, model.steps) == ("diverged", 10) and "step 15" in model.message
    assert same(model, train("gan", points, steps=10, **QUICK))
    assert same(model, train("gan", points, steps=10, checkpoint=tmp_path, **QUICK))  # what is on disk is good


def test_weights_that_overflow_are_noticed_at_the_end(points):
    with pytest.warns(RuntimeWarning, match="rescale"):
        model = train("lsgan", points, steps=4, optimizer="sgd", lr=1e30, **QUICK)
    assert model.status == "diverged" and model.steps == 0
    assert torch.isfinite(model.sample(5, seed=0)).all()


def test_max_time_counts_training_only(points, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("otgan.adversarial._training.time.perf_counter", lambda: now[0])

    def step(state):
        now[0] += 1.0

    def look(state):
        now[0] += 100.0

    model = train("gan", points, max_time=10.0, callback=step, observer=look, evaluate_every=3, **QUICK)
    assert (model.status, model.steps, model.seconds) == ("max_time", 10, 10.0)


def test_observer_sees_the_generator_as_it_learns(points):
    seen = []

    def look(state):
        seen.append((state.step, state.model.sample(4, seed=0), state.critic_loss))
        return state.step == 9

    model = train("gan", points, steps=50, observer=look, evaluate_every=3, **QUICK)
    assert [step for step, _, _ in seen] == [3, 6, 9] and model.status == "stopped"
    assert not torch.equal(seen[0][1], seen[1][1]) and torch.equal(seen[2][1], model.sample(4, seed=0))
    assert math.isnan(seen[0][2]) and seen[1][2] == model.history[0]["critic_loss"]
    alone = train("gan", points, steps=9, **QUICK)
    assert same(model, alone)  # to look changes nothing


def test_progress_is_shown_and_removed(points, capsys):
    train("gan", points, steps=10, progress=True, **QUICK)
    out, err = capsys.readouterr()
    assert out == "" and "gan" in err


# --- networks and sources of one's own ---


def test_own_networks_and_source(points):
    generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="source="):
        train("wgan-gp", points, generator=generator, critic=critic, steps=2, **QUICK)
    model = train("wgan-gp", points, generator=generator, critic=critic, source=og.UniformBall(4), steps=2, **QUICK)
    assert model.generator is generator and model.critic(points).shape == (400,)
    with pytest.raises(TypeError, match="state_dict"):
        model.save("nowhere")


def test_a_generator_that_cannot_learn_stays(points):
    model = train("gan", points, generator=nn.Identity(), source=og.Gaussian(2), steps=6, **QUICK)
    assert torch.equal(model.sample(5, seed=3), og.Gaussian(2).sample(5, seed=3))
    assert math.isnan(model.history[0]["generator_loss"]) and math.isfinite(model.history[0]["value"])


def test_float64_networks_train_in_float64(points):
    model = train(
        "gan",
        points.double(),
        generator=MLP(3, 2, 8, 1).double(),
        critic=MLP(2, 1, 8, 1, scores=True).double(),
        steps=2,
        **QUICK,
    )
    assert model.sample(3).dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_presets_and_models_come_back_from_disk(method, points, tmp_path):
    model = train(method, points, steps=6, source=og.UniformBall(3), ema=0.5, **QUICK)
    model.save(tmp_path / "m")
    again = og.load(tmp_path / "m")
    assert torch.equal(again.sample(20, seed=1), model.sample(20, seed=1))
    assert torch.equal(again.critic(points), model.critic(points))
    assert again.preset == model.preset and again.history == model.history and again.summary() == model.summary()
    assert (again.status, again.method) == ("finished", method)


def test_published_settings():
    wgan, gp = PRESETS["wgan"], PRESETS["wgan-gp"]
    for preset in wgan.values():
        found = (preset.optimizer, preset.lr, preset.loss.clip, preset.critic_steps, preset.batch)
        assert found == ("rmsprop", 5e-5, 0.01, 5, 64)
    assert (gp["toy"].loss.penalty_weight, gp["mnist"].loss.penalty_weight) == (0.1, 10.0)
    assert (gp["toy"].betas, gp["mnist"].betas) == ((0.5, 0.9), (0.0, 0.9))
    assert all((p.optimizer, p.lr, p.critic_steps) == ("adam", 1e-4, 5) for p in gp.values())
    assert gp["mnist"].critic_norm != "batch" and (gp["toy"].width, gp["toy"].depth) == (512, 3)
    assert all(preset.source for presets in PRESETS.values() for preset in presets.values())


# --- batches ---


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (4, 6), (3, 64)])
@pytest.mark.parametrize("copied", [True, False])
def test_batches_go_through_the_data(n, size, copied, monkeypatch):
    monkeypatch.setattr("otgan.adversarial._data._COPIED", 1 << 20 if copied else 0)
    data = torch.arange(n)[:, None].float()
    batches = Batches(data, size, seed=1)
    epoch = torch.cat([batches[b] for b in range(batches.per_epoch)]).flatten().long()
    counts = torch.bincount(epoch, minlength=n)
    assert len(epoch) % size == 0 and counts.max() <= -(-size // n) and (counts.sum() > 0)
    assert torch.equal(Batches(data, size, seed=1)[7], batches[7])  # a function of the number alone
    if size == n:
        assert counts.min() == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"method": "dcgan"}, "'gan', 'wgan', 'wgan-gp', 'lsgan'"),
        ({"preset": "imagenet"}, "'toy', 'mnist'"),
        ({"clip": 0.1}, "no setting clip"),
        ({"preset": "mnist"}, "preset='toy'"),
        ({"data": np.zeros(5)}, r"\[:, None\]"),
        ({"data": np.zeros((5, 28, 28))}, r"\[:, None\]"),
        ({"data": np.zeros((5, 1, 20, 20))}, "28, 28"),
        ({"data": 255 * np.ones((5, 1, 28, 28))}, "grey levels"),
        ({"data": np.zeros((1, 2))}, "two points"),
        ({"data": np.array([[0.0, np.nan], [1.0, 2.0]])}, "NaN"),
        ({"data": np.array([[0.0, np.inf], [1.0, 2.0]])}, "infinite"),
        ({"generator": MLP(2, 3, 4, 1), "source": og.Gaussian(2)}, r"shape \(3,\), the data has .* \(2,\)"),
        ({"generator": DCGANGenerator(5, width=2), "source": og.Gaussian(5)}, r"\(1, 28, 28\)"),
        ({"critic": MLP(5, 1, 4, 1)}, "critic does not take"),
        ({"critic": MLP(2, 2, 4, 1)}, "one score a point"),
        ({"critic": nn.Flatten(0)}, "no parameter"),
        ({"ema": 1.0}, "ema"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"lr": -1.0}, "lr"),
        ({"max_time": 0.0}, "max_time"),
        ({"method": "wgan", "clip": 0.0}, "clip"),
        ({"method": "wgan", "preset": PRESETS["gan"]["toy"]}, "loss of 'gan'"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(named, said, points):
    arguments = {"method": "gan", "data": points, "steps": 2, **named}
    with pytest.raises(ValueError, match=said):
        train(arguments.pop("method"), arguments.pop("data"), **arguments)


def test_wrong_kinds_are_refused(points):
    for named in ({"generator": "mlp"}, {"critic": 3}, {"source": torch.randn}):
        with pytest.raises(TypeError):
            train("gan", points, steps=2, **named)
    with pytest.raises(TypeError, match="loss"):
        Preset(loss="gan", source="", optimizer="adam", lr=1e-3)
    model = train("wgan", points, steps=1, **QUICK)
    with pytest.raises(ValueError, match=r"\(m, 2\)"):
        model.critic(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="probability"):
        model.discriminator(points)
    with pytest.raises(ValueError, match="history has"):
        train("wgan", points, steps=5, **QUICK).curve("fid")
