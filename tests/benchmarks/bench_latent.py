"""Images to codes to new images: ``python tests/benchmarks/bench_latent.py`` on MNIST, each part timed.

With OTGAN_DATA: 60,000 training images, an autoencoder, one solve for all codes, the generator, 10,000 new images;
without it the project's own glyphs. Seconds are of the processor (all threads together, so that others on the machine
count little) and of the clock. Errors are mean squares of grey levels in [0, 1] on the 10,000 test images, beside
principal components.

``--noise 0 0.1 --whiten 0 0.01`` trains one autoencoder for each pair. The last columns judge the codes: how sure a
small classifier is of images half-way between a test image and its fifth neighbour of the same class, and the Frechet
distance in that classifier's 64 features between test images and reconstructions, and new images.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import otgan as og
from otgan.datasets import data_folder
from otgan.images import Images, mnist, read
from otgan.latent import Autoencoder, LatentOTGAN

GLYPHS = Path(__file__).resolve().parents[2] / "data" / "glyphs.npz"


class Clock:
    """Seconds of the processor and of the clock since the start."""

    def __init__(self) -> None:
        self.start = time.process_time(), time.perf_counter()

    def __str__(self) -> str:
        cpu, wall = time.process_time() - self.start[0], time.perf_counter() - self.start[1]
        return f"{cpu:.1f} s CPU, {wall:.1f} s"


class Judge:
    """A small convolutional classifier of the training images, and its features."""

    def __init__(self, train: Images, test: Images, seed: int = 0) -> None:
        c, h, w = train.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(c, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2, 2), nn.ReLU(), nn.Flatten(),
                nn.Linear(32 * ((h + 3) // 4) * ((w + 3) // 4), 64), nn.ReLU(),
            )  # fmt: skip
            self.head = nn.Linear(64, len(train.names))
            steps, batch = max(2 * len(train) // 256, 200), min(256, len(train))
            parameters = [*self.body.parameters(), *self.head.parameters()]
            optimiser = torch.optim.Adam(parameters, lr=2e-3)
            assert train.labels is not None and test.labels is not None
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = 2e-3 * (1.0 - step / steps)
                index = torch.randint(len(train), (batch,))
                logits = self.head(self.body(train.pixels[index].float() / 255.0))
                loss = nn.functional.cross_entropy(logits, train.labels[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        self.test = test
        self.features = self.of(test.floats())
        right = self.probabilities(test.floats()).argmax(dim=1) == test.labels
        print(f"classifier: {100 * float(right.double().mean()):.1f} % of the test images", flush=True)

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """Features, shape (n, 64), float64."""
        return torch.cat([self.body(block) for block in images.split(1000)]).double()

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Of the classes, shape (n, k)."""
        return self.head(self.of(images).float()).softmax(dim=1)

    def distance(self, images: Tensor) -> float:
        """Frechet distance of the features' Gaussians to those of the test images."""
        (m, a), (n, b) = ((x.mean(dim=0), x.T.cov()) for x in (self.of(images), self.features))
        values, vectors = torch.linalg.eigh(a)
        root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
        cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0.0).sqrt().sum()
        return float((m - n).square().sum() + a.trace() + b.trace() - 2.0 * cross)

    def between(self, autoencoder: Autoencoder) -> float:
        """How sure it is of what lies half-way between neighbours of one class."""
        some = self.test.subset(slice(0, 4000))
        assert some.labels is not None
        codes = autoencoder.encode(some).double()
        apart = torch.cdist(codes, codes)
        apart[some.labels[:, None] != some.labels] = torch.inf
        other = apart.topk(6, largest=False).indices[:, -1]
        return float(self.probabilities(autoencoder.decode((codes + codes[other]) / 2)).max(dim=1).values.mean())


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """Distance of each point to the nearest code."""
    return torch.cat([torch.cdist(block, codes).min(dim=1).values for block in points.split(250)])


def linear_error(train: Images, test: Images, latent: int) -> float:
    """Error of as many principal components, cut to [0, 1]."""
    x, y = (images.floats().flatten(1) for images in (train, test))
    centre = x.mean(dim=0)
    rows = torch.linalg.eigh(((x - centre).T @ (x - centre)).double()).eigenvectors[:, -latent:].T.float()
    again = ((y - centre) @ rows.T @ rows + centre).clamp(0.0, 1.0)
    return float((again - y).double().square().mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Print what each part costs and gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, default=60_000)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10_000, help="of the autoencoder")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.1])
    parser.add_argument("--whiten", type=float, nargs="+", default=[0.0])
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--generator", default="auto")
    parser.add_argument("--n-new", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-autoencoder", action="store_true")
    parser.add_argument("--save", type=Path, help="folder of the last model")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if data_folder() is not None:
        train, test = mnist(), mnist(train=False)
        train = train.subset(slice(0, args.n_train))
    else:
        train, test = read(GLYPHS).split(100)
    judge = Judge(train, test)
    print(f"{train!r}; principal components: {linear_error(train, test, args.latent):.5f}", flush=True)
    for noise, whiten, precision in itertools.product(args.noise, args.whiten, args.precision):
        print(f"\nnoise {noise:g}, whiten {whiten:g}, {precision}", flush=True)
        autoencoder = Autoencoder(args.latent, width=args.width, hidden=args.hidden, seed=args.seed)
        clock = Clock()
        autoencoder.fit(
            train, steps=args.steps, batch=args.batch, lr=args.lr, noise=noise, whiten=whiten, precision=precision
        )
        assert autoencoder.report is not None
        print(f"autoencoder, {autoencoder.report.epochs:.1f} epochs ({autoencoder.report.status}): {clock}", flush=True)
        clock = Clock()
        again = autoencoder.reconstruct(test)
        print(f"{len(test)} test images there and back: {clock}", flush=True)
        print(
            f"error {autoencoder.reconstruction_error(test):.5f}, Frechet distance {judge.distance(again):.3f}, sure "
            f"of what lies between {judge.between(autoencoder):.4f}",
            flush=True,
        )
        if args.only_autoencoder:
            continue
        model = LatentOTGAN(autoencoder, og.OTGAN(generator=args.generator, seed=args.seed))
        clock = Clock()
        model.fit(train)
        print(f"encode, solve, fit the generator: {clock}", flush=True)
        result = model.model.result
        scores = ", ".join(f"{name} {score.total:.3f}" for name, score in model.model.scores.items())
        print(
            f"of that the solve {result.seconds:.1f} s: chi2 {result.certificate.chi2:.4f}, "
            f"{result.certificate.empty_cells} cells empty; {model.model.generator.extra_repr()}; scores: {scores}",
            flush=True,
        )
        clock = Clock()
        new = model.sample(args.n_new, seed=args.seed + 1)
        print(f"{args.n_new} new images: {clock}", flush=True)
        sure = float(judge.probabilities(new).max(dim=1).values.mean())
        print(f"new images: Frechet distance {judge.distance(new):.3f}, sure of them {sure:.4f}", flush=True)
        codes = autoencoder.encode(train)
        usual = nearest(autoencoder.encode(test)[:1000], codes).median()
        ours = nearest(model.codes(1000, seed=args.seed + 1).to(codes), codes)
        print(
            f"distance to the nearest training code: {float(ours.median()):.3f}, of test images {float(usual):.3f}; "
            f"nearly copies (within a tenth of that) {100 * float((ours < 0.1 * usual).double().mean()):.0f} %",
            flush=True,
        )
        if args.save is not None:
            model.save(args.save)


if __name__ == "__main__":
    main()
