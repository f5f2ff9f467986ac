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
from otgan.adversarial import GAN, LOSSES, MLP, WGAN, AdversarialModel, train
from otgan.adversarial._data import Batches
from otgan.adversarial._random import derived_seed
from otgan.adversarial._training import Training

METHODS = tuple(LOSSES)
QUICK = {"width": 16, "batch": 32, "latent": 3, "record_every": 5}


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
    model = train("gan", points, preset="toy", saturating=True, seed=7, **settings)
    seeds = {purpose: derived_seed(7, purpose) for purpose in ("generator", "critic", "batches", "noise")}
    layers = {"activation": "tanh", "gain": 1.4}
    g = MLP(3, 2, 16, 2, seed=seeds["generator"], **layers)
    d = MLP(2, 1, 16, 2, scores=True, seed=seeds["critic"], **layers)
    batches, stream = Batches(points, 32, seeds["batches"]), torch.Generator().manual_seed(seeds["noise"])
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
    return MLP(3, 2, 16, 2, seed=derived_seed(0, "generator"), activation="tanh", gain=1.4).parameters()


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


@pytest.mark.parametrize("method", METHODS)
def test_scalar_parameters_are_continued(method, points, tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = MLP(2, 1, 16, 1, scores=True, seed=3), nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.scale * self.inner(x)

    settings = {**QUICK, "seed": 2}
    whole = train(method, points, critic=Scaled(), steps=9, **settings)
    train(method, points, critic=Scaled(), steps=4, checkpoint=tmp_path, **settings)
    assert same(whole, train(method, points, critic=Scaled(), steps=9, checkpoint=tmp_path, **settings))


def test_layers_that_draw_are_continued_and_leave_the_global_stream_alone(points, tmp_path):
    def run(steps, **more):
        torch.manual_seed(1)
        critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
        torch.manual_seed(len(more))  # what the global stream holds must not matter
        before = torch.get_rng_state()
        model = train("wgan-gp", points, critic=critic, steps=steps, **QUICK, **more)
        assert torch.equal(before, torch.get_rng_state())
        return model

    whole = run(20)
    run(9, checkpoint=tmp_path)
    again = run(20, checkpoint=tmp_path)
    assert same(whole, again) and without_time(whole.history) == without_time(again.history)


@pytest.mark.parametrize("method", ["gan", "wgan-gp"])  # orthogonal weights, and He's
def test_streams_differ(points, monkeypatch, method):
    """Weights, noise and shuffling draw from streams of their own: equal seeds would make one a copy of another."""
    seen, forward = [], MLP.forward

    def kept(network, z):
        if network.inputs == 256:
            seen.append((network.layers[0].weight.detach().clone(), z.detach().clone()))
        return forward(network, z)

    monkeypatch.setattr(MLP, "forward", kept)
    train(method, points, steps=1, batch=128, latent=256, width=128, seed=5)
    weights, noise = next(pair for pair in seen if len(pair[1]) == 128)
    assert weights.shape == noise.shape
    assert abs(float(torch.corrcoef(torch.stack([weights.ravel(), noise.ravel()]))[0, 1])) < 0.05
    assert len({derived_seed(s, p) for s in range(50) for p in ("noise", "generator")}) == 100


def test_images_with_batch_normalisation_are_continued_too(tmp_path):
    images = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    settings = dict(batch=8, width=4, latent=5, record_every=2, ema=0.5)
    whole = train("gan", images, steps=5, **settings)
    train("gan", images, steps=3, checkpoint=tmp_path, **settings)
    again = train("gan", images, steps=5, checkpoint=tmp_path, **settings)
    assert same(whole, again)
    new = again.sample(6, seed=1)
    assert new.shape == (6, 1, 28, 28) and 0 <= new.min() and new.max() <= 1
    averaged = train("gan", images, steps=3, **settings).generator
    plain = train("gan", images, steps=3, **{**settings, "ema": 0.0}).generator
    moved = [b for name, b in averaged.named_buffers() if "running" in name]
    wanted = [b for name, b in plain.named_buffers() if "running" in name]
    assert moved and all(torch.equal(a, b) for a, b in zip(moved, wanted, strict=True))  # statistics are not averaged
    assert not all(torch.equal(a, b) for a, b in zip(averaged.parameters(), plain.parameters(), strict=True))


def test_a_checkpoint_of_another_run_is_refused(points, tmp_path):
    train("wgan", points, steps=3, checkpoint=tmp_path, **QUICK)
    for changed in ({"seed": 1}, {"clip": 0.02}, {"ema": 0.5}, {"critic_steps": 2}):
        with pytest.raises(ValueError, match="another run"):
            train("wgan", points, steps=3, checkpoint=tmp_path, **{**QUICK, **changed})
    with pytest.raises(ValueError, match="another run"):
        train("wgan", points + 1, steps=3, checkpoint=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="another run"):
        train("gan", points, steps=3, checkpoint=tmp_path, **QUICK)

    def networks(activation):
        return {"critic": nn.Sequential(nn.Linear(2, 4), activation, nn.Linear(4, 1))}

    train("wgan", points, steps=3, checkpoint=tmp_path / "own", **networks(nn.Tanh()), **QUICK)
    with pytest.raises(ValueError, match="another run"):
        train("wgan", points, steps=3, checkpoint=tmp_path / "own", **networks(nn.ReLU()), **QUICK)

    class Mine(WGAN):
        pass

    with pytest.raises(ValueError, match="another run"):
        train(Mine(), points, steps=3, checkpoint=tmp_path, **QUICK)
    plain = {**QUICK, "betas": (0.5, 0.9)}
    train("gan", points, steps=3, checkpoint=tmp_path / "same", **plain)
    train("gan", points, steps=3, checkpoint=tmp_path / "same", **{**plain, "batch": np.int64(32), "betas": [0.5, 0.9]})


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(where, points, tmp_path):
    (tmp_path / "file").write_text("mine")
    steps = []
    with pytest.raises(ValueError, match="folder"):
        train("gan", points, steps=3, checkpoint=tmp_path / where, callback=lambda s: steps.append(1), **QUICK)
    assert not steps and (tmp_path / "file").read_text() == "mine"


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
    assert [row["step"] for row in again.history] == [5, 10, 15, 20]
    assert same(again, train("wgan", points, steps=20, **QUICK))


def test_ctrl_c_while_a_row_is_recorded_loses_no_row(points, tmp_path, ctrl_c, monkeypatch):
    record, calls = Training._record, []

    def pressed(self):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return record(self)

    monkeypatch.setattr(Training, "_record", pressed)
    cut = train("wgan", points, steps=20, checkpoint=tmp_path, **QUICK)
    assert cut.status == "interrupted" and [row["step"] for row in cut.history] == [5, 10]
    again = train("wgan", points, steps=20, checkpoint=tmp_path, **QUICK)
    whole = train("wgan", points, steps=20, **QUICK)
    assert same(again, whole) and without_time(again.history) == without_time(whole.history)


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
    assert model.status == "interrupted" and model.steps == 8 and not list((tmp_path / "a").iterdir())
    assert torch.isfinite(model.sample(10, seed=0)).all()


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_state(points, tmp_path):
    class Broken(GAN):
        steps = 0

        def generator_loss(self, fake):
            Broken.steps += 1
            loss = super().generator_loss(fake)
            return loss * math.nan if Broken.steps > 12 else loss

    with pytest.warns(RuntimeWarning, match="Lower lr"):
        model = train(Broken(saturating=True), points, steps=40, checkpoint=tmp_path, checkpoint_every=1e-9, **QUICK)
    assert (model.status, model.steps) == ("diverged", 10) and "step 15" in model.message
    assert same(model, train("gan", points, steps=10, **QUICK))
    Broken.steps = -100
    again = train(Broken(saturating=True), points, steps=10, checkpoint=tmp_path, **QUICK)
    assert Broken.steps == -100 and same(model, again)  # what is on disk is good


def test_weights_that_overflow_are_noticed_at_the_end(points):
    with pytest.warns(RuntimeWarning, match="rescale"):
        model = train("lsgan", points, steps=4, optimizer="sgd", lr=1e30, **QUICK)
    assert model.status == "diverged" and model.steps == 0
    assert torch.isfinite(model.sample(5, seed=0)).all()


def test_long_rows_do_not_hide_a_nan(points):
    with pytest.warns(RuntimeWarning, match="step 100"):
        model = train("lsgan", points, steps=400, optimizer="sgd", lr=1e30, **{**QUICK, "record_every": 10**6})
    assert model.status == "diverged"


def test_networks_are_left_without_gradients_and_in_eval_mode(points):
    generator, critic = MLP(3, 2, 8, 1), MLP(2, 1, 8, 1, scores=True)

    def fail(state):
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        train("gan", points, generator=generator, critic=critic, steps=3, callback=fail, **QUICK)
    for network in (generator, critic):
        assert not network.training and all(p.grad is None for p in network.parameters())


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
