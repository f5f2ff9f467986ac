"""Saving: round trips, crashes at every moment, and files that are not what they seem."""

import json
import os

import numpy as np
import pytest
import torch

import otgan as og
from otgan import io

SOURCES = [
    og.UniformBox([0.0, 0.0], [1.0, 2.0]),
    og.UniformBall(2, 3.0),
    og.Gaussian([0.0, 1.0], [[2.0, 1.0], [1.0, 1.0]]),
]


@pytest.fixture
def result():
    y = np.random.default_rng(0).random((10, 2))
    return og.solve(og.UniformBox(dim=2), np.concatenate([y, y[:2]]), method="adam", tol=0.1)


def test_potential_round_trip(tmp_path):
    u = og.BrenierPotential(np.eye(3, dtype=np.float32), [0.0, -np.inf, 0.1], [1, 2, 3], center=[1.0, 2.0, 3.0])
    u.save(tmp_path / "u")
    v = og.load(tmp_path / "u")
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(u.buffers(), v.buffers(), strict=True))
    assert sorted(os.listdir(tmp_path / "u")) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_result_round_trip(tmp_path, source):
    result = og.solve(source, np.random.default_rng(0).random((10, 2)), method="adam", tol=0.1)
    again = og.load(result.save(tmp_path / "run"))
    assert again.summary() == result.summary() and again.certificate == result.certificate
    assert again.history == result.history and repr(again.source) == repr(source)
    x = source.sample(100, seed=0)
    assert torch.equal(again.potential.transport(x), result.potential.transport(x))
    assert torch.equal(again.source.sample(5, seed=1), source.sample(5, seed=1))


def test_discrete_result_keeps_its_plan(tmp_path):
    rng = np.random.default_rng(0)
    result = og.solve(og.Empirical(rng.normal(size=(20, 2))), rng.normal(size=(8, 2)))
    again = og.load(result.save(tmp_path / "run"))
    assert np.array_equal(again.plan.matrix.toarray(), result.plan.matrix.toarray())
    assert again.value == result.value


def test_merged_targets_keep_their_index(tmp_path, result):
    again = og.load(result.save(tmp_path))
    assert torch.equal(again.target.index, result.target.index) and again.target.n_given == 12


def test_saving_again_replaces_and_leaves_other_files(tmp_path, result):
    (tmp_path / "picture.png").write_bytes(b"png")
    og.BrenierPotential(np.eye(2), [0.0, 0.0]).save(tmp_path)
    result.save(tmp_path)
    assert isinstance(og.load(tmp_path), og.Result)
    assert (tmp_path / "picture.png").read_bytes() == b"png"
    assert og.load(tmp_path / "config.json").potential.n == 10


def test_loading_leaves_the_global_random_stream_alone(tmp_path):
    """Networks draw weights as they are made, from torch's global state."""
    points = np.random.default_rng(0).normal(size=(40, 2))
    og.adversarial.train("wgan", points, steps=1, width=8, batch=8).save(tmp_path / "gan")
    og.OTGAN(generator="icnn", tol=0.2, seed=0).fit(points, max_time=1.0).save(tmp_path / "icnn")
    before = torch.get_rng_state()
    for name in ("gan", "icnn"):
        og.load(tmp_path / name)
    assert torch.equal(before, torch.get_rng_state())


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("moment", range(12))
def test_a_crash_while_saving_leaves_a_whole_model(tmp_path, monkeypatch, moment):
    """Old or new, never a mixture: every write, sync and rename is a moment to die at."""
    old = og.BrenierPotential(np.eye(2), [0.0, 1.0])
    new = og.BrenierPotential(np.eye(2), [0.0, 2.0])
    old.save(tmp_path)
    steps = iter(range(100))

    def dying(call):
        def wrapped(*args, **kwargs):
            if next(steps) == moment:
                raise Crash
            return call(*args, **kwargs)

        return wrapped

    def half_write(path, data):
        if next(steps) == moment:
            path.write_bytes(data[: len(data) // 2])
            raise Crash
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(io, "_write", half_write)
        patch.setattr(io, "_sync_folder", dying(io._sync_folder))
        patch.setattr(os, "replace", dying(os.replace))
        try:
            new.save(tmp_path)
            finished = True
        except Crash:
            finished = False
    loaded = og.load(tmp_path)
    assert float(loaded.heights[1]) in ((2.0,) if finished else (1.0, 2.0))
    newest = og.BrenierPotential(np.eye(2), [0.0, 3.0])
    newest.save(tmp_path)  # and the folder can be written again
    assert float(og.load(tmp_path).heights[1]) == 3.0


def test_a_crash_in_two_saves_in_a_row(tmp_path, monkeypatch):
    og.BrenierPotential(np.eye(2), [0.0, 1.0]).save(tmp_path)
    real = os.replace

    def only_tensors(a, b):
        if str(b).endswith("config.json"):
            raise Crash
        real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", only_tensors)
        with pytest.raises(Crash):
            og.BrenierPotential(np.eye(2), [0.0, 2.0]).save(tmp_path)
    assert float(og.load(tmp_path).heights[1]) == 2.0

    def never(path, data):
        path.write_bytes(b"half")
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(io, "_write", never)
        with pytest.raises(Crash):
            og.BrenierPotential(np.eye(2), [0.0, 3.0]).save(tmp_path)
    assert float(og.load(tmp_path).heights[1]) == 2.0


def test_damaged_and_foreign_files_are_refused(tmp_path, result):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        og.load(tmp_path / "nothing")
    pickle_like = tmp_path / "model.pt"
    pickle_like.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(io.FormatError, match="never reads pickles"):
        og.load(pickle_like)
    (tmp_path / "empty").mkdir()
    with pytest.raises(io.FormatError, match="not written by otgan"):
        og.load(tmp_path / "empty")
    with pytest.raises(FileExistsError, match="is a file"):
        result.save(pickle_like)

    def broken(change):
        folder = result.save(tmp_path / "run")
        config = json.loads((folder / "config.json").read_text())
        change(folder, config)
        return folder

    def edit(**items):
        return lambda folder, config: (folder / "config.json").write_text(json.dumps({**config, **items}))

    def flip(folder, config):
        blob = bytearray((folder / "model.safetensors").read_bytes())
        blob[-1] ^= 1
        (folder / "model.safetensors").write_bytes(bytes(blob))

    cases = [
        (flip, "does not match"),
        (lambda f, c: (f / "model.safetensors").write_bytes(b""), "does not match"),
        (lambda f, c: (f / "config.json").write_text("{"), "not readable JSON"),
        (lambda f, c: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "not readable JSON"),
        (lambda f, c: (f / "config.json").write_text("[1, 2]"), "not written by otgan"),
        (edit(format="other"), "not written by otgan"),
        (edit(format_version=99), "update otgan"),
        (edit(kind="Spaceship"), "does not know"),
        (edit(config={}), "does not describe"),
        (edit(config=3), "lacks"),
        (edit(kind="BrenierPotential"), "does not describe"),
    ]
    for change, words in cases:
        with pytest.raises(io.FormatError, match=words):
            og.load(broken(change))


def test_no_foreign_class_is_ever_built(tmp_path, result):
    folder = result.save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["source"]["class"] = "DiscreteMeasure.__init__"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(io.FormatError, match="unknown source"):
        og.load(folder)


def test_processes_that_save_into_one_folder_do_not_harm_it(tmp_path):
    """Each of several writers replaces the model as a whole; a reader always finds one of them."""
    from concurrent.futures import ThreadPoolExecutor

    def write(value):
        for _ in range(10):
            og.BrenierPotential(np.eye(2), [0.0, value]).save(tmp_path)

    write(0.0)
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, float(value)) for value in range(3)]
        for _ in range(30):
            assert float(og.load(tmp_path).heights[1]) in (0.0, 1.0, 2.0)
        for writer in writers:
            writer.result()


def test_wrong_types_and_shapes_are_refused(tmp_path, result):
    folder = result.save(tmp_path)
    good = json.loads((folder / "config.json").read_text())
    for name, value in [("certificate", []), ("certificate", None), ("seconds", "long"), ("history", 3)]:
        (folder / "config.json").write_text(json.dumps({**good, "config": {**good["config"], name: value}}))
        with pytest.raises(io.FormatError, match="does not describe"):
            og.load(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(io.FormatError, match="not readable JSON"):
        og.load(folder)


def test_a_source_of_ones_own_is_refused_at_saving(tmp_path, result):
    from dataclasses import replace

    class Mine(og.UniformBox):
        pass

    with pytest.raises(TypeError, match="cannot be read back"):
        replace(result, source=Mine(dim=2)).save(tmp_path)
