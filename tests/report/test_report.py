"""The report: one page that loads nothing, says what the certificate says, and escapes what others wrote."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import otgan as og
from otgan.images import Images
from otgan.latent import LatentOTGAN, Pair
from otgan.report import report_html, write_report
from otgan.report.reproduction import reproduce
from otgan.report.run import run_of

VOID = {"img", "meta", "source", "br", "hr"}
EVIL = "<script>alert('1')</script>\"&"


class Page(HTMLParser):
    """Elements of a page, with a complaint where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style",):
            self.words += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def svg(uri: str) -> str:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


@pytest.fixture(scope="module")
def ring() -> og.Result:
    """Three tight modes in the plane, solved exactly."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * rng.integers(3, size=45) / 3
    points = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(45, 2))
    return og.solve(og.UniformBall(2), points)


@pytest.fixture(scope="module")
def page(ring: og.Result) -> str:
    rng = np.random.default_rng(1)
    test = rng.normal(size=(60, 2))
    found = og.metrics.evaluate(test[:30], test, train=ring.target.points, names=["energy", "copies"], n_null=2)
    return report_html(ring, evaluation=found, title="Three modes")


def test_nothing_is_loaded(page: str) -> None:
    parsed = Page(page)
    for _, attributes in parsed.elements:
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#"))
    assert {"link", "script", "iframe", "object", "form", "base"}.isdisjoint(name for name, _ in parsed.elements)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert "url(" not in style and "@import" not in style
    (policy,) = [meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    drawings = [image["src"] for image in parsed.all("img")] + [one["srcset"] for one in parsed.all("source")]
    assert len(drawings) >= 10
    for drawing in drawings:
        links = re.findall(r'(?:href|src)="([^"]*)"', svg(drawing)) + re.findall(r"url\(([^)]*)\)", svg(drawing))
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_it_is_readable_without_seeing(page: str) -> None:
    parsed = Page(page)
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.all("h1")) == 1 and len(parsed.all("main")) == 1
    headings = {heading["id"] for heading in parsed.all("h2")}
    assert {link["href"].removeprefix("#") for link in parsed.all("a")} == headings
    assert all(len(image["alt"]) > 30 for image in parsed.all("img"))
    assert all(int(image["width"]) > 100 and int(image["height"]) > 100 for image in parsed.all("img"))
    tables = parsed.all("table")
    assert len(tables) == len(parsed.all("caption")) >= 4
    assert all(head["scope"] in ("col", "row") for head in parsed.all("th"))
    assert any("width=device-width" in meta.get("content", "") for meta in parsed.all("meta"))
    assert "prefers-color-scheme: dark" in page


def test_figures_have_a_dark_twin(page: str) -> None:
    parsed = Page(page)
    for twin, image in zip(parsed.all("source"), parsed.all("img"), strict=True):
        assert twin["media"] == "(prefers-color-scheme: dark)"
        light, dark = svg(image["src"]), svg(twin["srcset"])
        assert "#26262e" in light and "#26262e" not in dark and "#e9e9ee" in dark


def test_it_says_what_the_certificate_says(ring: og.Result, page: str) -> None:
    words = Page(page).words
    assert "exact integrals" in words and "0 of 45" in words
    assert "Every one of the 45 data points has a cell of positive measure" in words
    assert f"{ring.certificate.w2_lower:.6g}"[:6] in words
    assert "Converged." in words
    assert "Singular set" in words  # the modes are far apart
    assert "energy" in words and "held-out" in words


def test_a_sampled_certificate_and_empty_cells() -> None:
    y = np.random.default_rng(0).normal(size=(30, 5))
    result = og.solve(og.Gaussian(5), y, tol=0.1)
    heights = result.potential.heights.clone()
    heights[:3] -= 1e3  # these three win nowhere
    from dataclasses import replace

    potential = og.BrenierPotential(result.potential.points, heights, result.potential.weights)
    broken = replace(
        result, potential=potential, certificate=og.certify(potential, result.source, 5000, seed=1), status="max_iter",
        message="Stopped early.",
    )  # fmt: skip
    text = report_html(broken)
    words = Page(text).words
    assert "3 of 30 data points (10 %) were reached by no sample" in words
    exact = replace(broken, certificate=replace(broken.certificate, exact=True, n_samples=0))
    assert "3 of 30 data points (10 %) have cells of measure 0" in Page(report_html(exact)).words
    assert "5,000 samples of the source that the solver never saw" in words
    assert "Not converged." in words and 'class="verdict warn"' in text
    assert f"(n - 1) / N = {29 / result.n_samples:.3f}"[:16] in words
    assert "No held-out data was given" in words


@pytest.mark.parametrize(("d", "p"), [(1, 2.0), (3, 2.0), (2, 3.0)])
def test_other_dimensions_and_costs(d: int, p: float) -> None:
    y = np.random.default_rng(0).normal(size=(12, d))
    result = og.solve(og.Gaussian(d), y, tol=0.2, p=p)
    parsed = Page(report_html(result))
    assert "A figure is missing" not in parsed.words
    assert len(parsed.all("img")) >= 3 + (d > 1)  # on the line the first step is the last: no curve
    assert ("W3(source, data)" in parsed.words) == (p == 3.0)


def test_what_others_wrote_is_escaped(ring: og.Result, tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "_")
    ring.save(folder)
    record = {"command": EVIL, "inputs": [{"path": EVIL, "sha256": EVIL}], "versions": {EVIL: EVIL}, "python": EVIL}
    (folder / "run.json").write_text(json.dumps(record | {"settings": {"seed": 3}}))
    metric = {"value": 1.0, "null": 0.5, "null_spread": 0.1, "z": None, "direction": EVIL}
    found = {"metrics": {EVIL: metric}, "n_samples": 5, "seed": EVIL, "notes": [EVIL]}
    text = report_html(folder, evaluation=found)
    parsed = Page(text)
    assert "script" not in {name for name, _ in parsed.elements}
    assert "<script" not in text
    assert parsed.words.count("alert") >= 9
    assert "&lt;script&gt;" in report_html(ring, title=EVIL)
    assert "Seed of the run 3" in re.sub(r"\s+", " ", parsed.words)


def test_a_broken_record_is_left_out(ring: og.Result, tmp_path: Path) -> None:
    ring.save(tmp_path)
    for broken in ("[1]", "{", '{"settings": 3, "inputs": 4, "versions": 5, "command": 6}', '{"inputs": [7]}'):
        (tmp_path / "run.json").write_text(broken)
        run = run_of(ring, tmp_path)
        assert "was not recorded" in Page(reproduce(run, 0, {"otgan": "1"}, "3")).words


def test_the_same_run_gives_the_same_page(ring: og.Result, tmp_path: Path) -> None:
    ring.save(tmp_path / "run")
    first = write_report(tmp_path / "run").read_bytes()
    assert write_report(tmp_path / "run", tmp_path / "deep" / "page.html", seed=0).read_bytes() == first
    assert write_report(tmp_path / "run", tmp_path / "other.html", seed=1).read_bytes() != first
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json", "model.safetensors", "report.html",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="out says where"):
        write_report(ring)


def test_models_and_what_is_no_run(ring: og.Result, tmp_path: Path) -> None:
    model = og.OTGAN(og.UniformBall(2), generator="extension", seed=4).fit(ring.target.points)
    model.save(tmp_path)
    words = re.sub(r"\s+", " ", Page(report_html(tmp_path)).words)
    assert "An OTGAN model" in words and "Seed of the run 4" in words and "Setting: generator extension" in words
    ring.potential.save(tmp_path / "potential")
    with pytest.raises(TypeError, match="got a BrenierPotential"):
        report_html(tmp_path / "potential")
    with pytest.raises(FileNotFoundError):
        report_html(tmp_path / "nowhere")


def pair() -> Pair:
    """Codes are the grey levels of an image of 2 x 2."""
    return Pair(lambda x: x.flatten(1), lambda z: z, (1, 2, 2))


def test_generators_of_images() -> None:
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 2, 2, generator=stream)
    model = LatentOTGAN(pair(), og.OTGAN(generator="entropic", tol=0.3, seed=6)).fit(images)
    text = report_html(model, title="images")
    words = re.sub(r"\s+", " ", Page(text).words)
    assert text.count('class="picture"') == 1 and "as the decoder shows its code" in words
    assert "Seed of the run 6" in words and "Setting: autoencoder" in words
    text = report_html(model, title="images", train_images=images)
    assert "distance of pixels" in Page(text).words
    classes = Images.of(images, labels=np.arange(30) % 2, names=(EVIL, "b"))
    both = LatentOTGAN(pair(), og.OTGAN(generator="nearest", tol=0.3)).fit(classes, by_class=True)
    parsed = Page(report_html(both, title="classes"))
    assert "script" not in {name for name, _ in parsed.elements}
    assert parsed.words.count("Class b") == 3 and "2 classes" in parsed.words
    assert "30 points, 30 given, in 2 classes, each with a solve of its own" in parsed.words
    assert len(parsed.all("img")) == 2 * 4


def test_the_demonstration_shows_digits(tmp_path: Path) -> None:
    from otgan.datasets import digits
    from otgan.demo import Codes

    images = digits()[0][:60]
    pca = Codes.of(images, 3)
    og.solve(og.Gaussian(3), pca.encode(images), tol=0.3).save(tmp_path)
    np.savez(tmp_path / "codes.npz", mean=pca.mean, components=pca.components)
    assert 'class="picture"' in report_html(tmp_path)
    run = run_of(og.load(tmp_path), tmp_path)
    assert run.decode is not None
    shown = run.decode(torch.from_numpy(pca.encode(images)))
    np.testing.assert_allclose(1.0 - shown[:, 0].numpy(), pca.decode(pca.encode(images)), atol=1e-12)
    np.savez(tmp_path / "codes.npz", mean=pca.mean, components=pca.components[:2])
    assert run_of(og.load(tmp_path), tmp_path).decode is None
