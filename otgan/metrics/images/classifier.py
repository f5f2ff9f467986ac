"""A small convolutional classifier, trained on the training labels: its features are where images are compared."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from otgan import io
from otgan._checks import as_count, as_positive
from otgan.metrics.images._pixels import as_labels, as_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_LEAST = 8  # pixels a side: three halvings leave one
_ROWS = 1024  # images in a block of features
_PASSES, _STEPS = 4, 1000
_WARM = 0.2  # share of the steps in which the rate rises


@dataclass(frozen=True)
class ClassifierState:
    """One moment of the training, handed to callbacks.

    Attributes:
        epoch: passes over the images that are done, a fraction in between.
        epochs: planned.
        loss: mean cross-entropy since the last moment, in nats.
        accuracy: share of right classes among the same (shifted) training images.
        seconds: since the start, wall clock.
    """

    epoch: float
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class ClassifierReport:
    """How a classifier was trained: settings, and of each epoch its number, mean loss, accuracy and the seconds so far.

    ``seconds`` are those of the wall clock, ``cpu_seconds`` those of the process.
    """

    n_images: int
    epochs: int
    seed: int
    status: str
    seconds: float
    cpu_seconds: float
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


class ImageClassifier(nn.Module):
    """Convolutional classifier of small images, with its penultimate features.

    Three times convolution 3 x 3, maximum of 2 x 2, batch normalisation, ReLU, with w, 2 w and 4 w channels; then a
    dense layer of F normalised units with ReLU, the **features**, and a linear layer to the classes.

    The features know what tells classes apart, and of the rest only what was left over: they see wrong and blurred
    shapes, and hardly a texture that does not matter for the class. Figures in the features of one classifier are not
    comparable with those of another, nor with any FID.

    Args:
        shape: (c, h, w), at least 8 pixels a side.
        n_classes: K >= 2.
        width: w.
        n_features: F.
        seed: of the initial weights.

    Attributes:
        report: how it was trained, None before.

    Example:
        >>> ImageClassifier((1, 28, 28), 10).features(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 64])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, shape: Sequence[int], n_classes: int, *, width: int = 16, n_features: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"shape must be (c, h, w), got {tuple(shape)}.")
        c, h, w = (as_count(size, "shape", least) for size, least in zip(shape, (1, _LEAST, _LEAST), strict=True))
        self.shape = (c, h, w)
        self.n_classes = as_count(n_classes, "n_classes", 2)
        self.width, self.n_features = as_count(width, "width", 1), as_count(n_features, "n_features", 1)
        self.report: ClassifierReport | None = None
        with torch.random.fork_rng(devices=[]):  # layers draw weights of their own, from the global state
            self.body, self.head = self._layers(c, (h // 8) * (w // 8))
        self.register_buffer("mean", torch.zeros(1, c, 1, 1))
        self.register_buffer("std", torch.ones(1, c, 1, 1))
        stream = torch.Generator().manual_seed(as_count(seed, "seed"))
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    fan = layer.weight[0].numel()
                    gain = 1.0 if layer is self.head else 2.0
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=stream) * (gain / fan) ** 0.5)
            self.head.bias.zero_()

    def _layers(self, channels: int, places: int) -> tuple[nn.Sequential, nn.Linear]:
        layers: list[nn.Module] = []
        for wide in (self.width, 2 * self.width, 4 * self.width):
            # The maximum comes first: all that follows then has a quarter of the work.
            layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(wide)]
            layers += [nn.ReLU()]
            channels = wide
        layers += [nn.Flatten(), nn.Linear(channels * places, self.n_features, bias=False)]
        layers += [nn.BatchNorm1d(self.n_features), nn.ReLU()]
        return nn.Sequential(*layers), nn.Linear(self.n_features, self.n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (n, K), of images as floats in [0, 1], shape (n, c, h, w)."""
        logits: Tensor = self.head(self.body((x - self.mean) / self.std))
        return logits

    def features(self, images: Any) -> Tensor:
        """Penultimate features, float32, shape (n, F), not negative.

        Args:
            images: bytes, or floats in [0, 1], shape (n, c, h, w); floats are rounded to bytes.
        """
        return self.features_and_logits(images)[0]

    def classify(self, images: Any) -> Tensor:
        """The most probable class of each image, int64, shape (n,)."""
        return self.features_and_logits(images)[1].argmax(dim=1)

    def probabilities(self, images: Any) -> Tensor:
        """Probability of each class, float32, shape (n, K)."""
        return self.features_and_logits(images)[1].softmax(dim=1)

    def accuracy(self, images: Any, labels: Any) -> float:
        """Share of images whose most probable class is their label."""
        found = self.classify(images).cpu()
        return float((found == as_labels(labels, len(found))).double().mean())

    @torch.no_grad()
    def features_and_logits(self, images: Any) -> tuple[Tensor, Tensor]:
        """Features and logits, computed in blocks as in use, whatever mode the module is in."""
        pixels = as_pixels(images, "images", self.shape)
        training = self.training
        self.eval()
        try:
            found = []
            for part in pixels.split(_ROWS):
                x = (part.to(self.head.weight.device).float() / 255.0 - self.mean) / self.std
                found.append(self.body(x.contiguous(memory_format=torch.channels_last)))
            features = torch.cat(found)
            return features, self.head(features)
        finally:
            self.train(training)

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        config = {"shape": list(self.shape), "n_classes": self.n_classes, "width": self.width}
        config |= {"n_features": self.n_features, "report": None if self.report is None else asdict(self.report)}
        return io.save(path, "ImageClassifier", config, dict(self.state_dict()))


@io.register("ImageClassifier")
def _load(config: dict[str, Any], tensors: dict[str, Tensor]) -> ImageClassifier:
    shape, classes = config["shape"], config["n_classes"]
    made = ImageClassifier(shape, classes, width=config["width"], n_features=config["n_features"])
    made.load_state_dict(tensors)
    report = config["report"]
    made.report = None if report is None else ClassifierReport(**report)
    return made.eval()


def train_classifier(
    images: Any,
    labels: Any,
    *,
    n_classes: int | None = None,
    epochs: int | None = None,
    batch: int = 250,
    lr: float = 0.01,
    shift: int = 1,
    width: int = 16,
    n_features: int = 64,
    seed: int = 0,
    progress: bool = False,
    callback: Callable[[ClassifierState], object] | None = None,
) -> ImageClassifier:
    """Train an :class:`ImageClassifier` on labelled training images.

    Cross-entropy, AdamW, a rate that rises and falls once; each image is shifted by up to ``shift`` pixels. Train it on
    the images that generators learn from, never on held-out ones. MNIST's 60,000 take 27 seconds of one core, after
    which 99.4 to 99.5 % of the test images are right (four runs).

    Args:
        images: bytes, or floats in [0, 1], shape (n, c, h, w).
        labels: classes 0 ... K - 1, shape (n,).
        n_classes: K; the largest label and one more when left out.
        epochs: passes over the images; 4, or as many as make 1,000 steps, when left out.
        batch: images a step.
        lr: largest rate.
        shift: pixels.
        width: channels of the first convolution.
        n_features: F.
        seed: of the initial weights, the order of the images and their shifts.
        progress: show a bar on standard error.
        callback: is shown a :class:`ClassifierState` every hundred steps; a true return value ends the training.

    Returns:
        The classifier in evaluation mode. Ctrl-C ends the training, and what was reached is kept; ``report`` says so.

    Raises:
        ValueError: for shapes that do not fit, fewer than two classes or images, or a label beyond ``n_classes``.
    """
    pixels = as_pixels(images, "images")
    y = as_labels(labels, len(pixels))
    if len(pixels) < 2:
        raise ValueError(f"images must be at least 2, got {len(pixels)}.")
    k = as_count(n_classes, "n_classes", 2) if n_classes is not None else int(y.max()) + 1
    if int(y.max()) >= k:
        raise ValueError(f"labels go up to {int(y.max())}, n_classes = {k} allows 0 to {k - 1}.")
    made = ImageClassifier(pixels.shape[1:], k, width=width, n_features=n_features, seed=seed)
    made = made.to(pixels.device)
    batch = min(as_count(batch, "batch", 2), len(pixels))
    if epochs is None:  # a small set is seen as often as it takes
        epochs = max(_PASSES, _STEPS * batch // len(pixels))
    training = _Training(made, pixels, y.to(pixels.device), as_count(epochs, "epochs", 1), batch)
    training.run(as_positive(lr, "lr"), as_count(shift, "shift"), as_count(seed, "seed"), progress, callback)
    return made.eval()


class _Training:
    """One training run."""

    def __init__(self, model: ImageClassifier, pixels: Tensor, labels: Tensor, epochs: int, batch: int) -> None:
        self.model, self.pixels, self.labels, self.epochs = model, pixels, labels, epochs
        self.batch = batch
        self.steps = len(pixels) // self.batch  # an epoch; the rest of the order is left to the next
        self.begun, self.cpu = time.perf_counter(), time.process_time()

    def run(
        self,
        lr: float,
        shift: int,
        seed: int,
        progress: bool,
        callback: Callable[[ClassifierState], object] | None,
    ) -> None:
        sample = self.pixels[:: max(1, len(self.pixels) // 2000)].double() / 255.0
        self.model.mean.copy_(sample.mean(dim=(0, 2, 3), keepdim=True))
        self.model.std.copy_(sample.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-3))
        bar = None
        if progress:
            from tqdm.auto import tqdm

            bar = tqdm(desc="classifier", total=self.epochs * self.steps, leave=False, mininterval=0.2)
        history: list[dict[str, float]] = []
        try:
            status = self._loop(lr, shift, seed, bar, callback, history)
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            if bar is not None:
                bar.close()
        seconds, cpu = time.perf_counter() - self.begun, time.process_time() - self.cpu
        self.model.report = ClassifierReport(len(self.pixels), self.epochs, seed, status, seconds, cpu, history=history)

    def _loop(
        self,
        lr: float,
        shift: int,
        seed: int,
        bar: Any,
        callback: Callable[[ClassifierState], object] | None,
        history: list[dict[str, float]],
    ) -> str:
        model, device = self.model.train(), self.pixels.device
        stream = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
        total = self.epochs * self.steps
        recent, epoch = _Mean(), _Mean()
        for step in range(total):
            if step % self.steps == 0:
                epoch = _Mean()
                order = torch.randperm(len(self.pixels), generator=stream).to(device)
            at = order[(step % self.steps) * self.batch :][: self.batch]
            x = shifted(self.pixels[at], shift, stream).float() / 255.0
            logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, self.labels[at])
            for group in optimiser.param_groups:
                group["lr"] = lr * rate(step / total)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            right = float((logits.detach().argmax(dim=1) == self.labels[at]).double().mean())
            for mean in (recent, epoch):
                mean.add(float(loss.detach()), right)
            if bar is not None:
                bar.update(1)
            last = (step + 1) % self.steps == 0
            if last or (step + 1) % 100 == 0:
                seconds = time.perf_counter() - self.begun
                state = ClassifierState((step + 1) / self.steps, self.epochs, *recent.values, seconds)
                recent = _Mean()
                if last:
                    loss_, right_ = epoch.values
                    history.append({"epoch": state.epoch, "loss": loss_, "accuracy": right_, "seconds": seconds})
                if bar is not None:
                    bar.set_postfix(loss=f"{state.loss:.3g}", accuracy=f"{state.accuracy:.4f}", refresh=False)
                if callback is not None and callback(state):
                    return "stopped"
        return "finished"


class _Mean:
    """Running means of loss and accuracy."""

    def __init__(self) -> None:
        self.loss = self.right = 0.0
        self.count = 0

    def add(self, loss: float, right: float) -> None:
        self.loss, self.right, self.count = self.loss + loss, self.right + right, self.count + 1

    @property
    def values(self) -> tuple[float, float]:
        count = max(self.count, 1)
        return self.loss / count, self.right / count


def rate(done: float) -> float:
    """Share of the largest rate after a share of the steps: up in a straight line, down along half a cosine."""
    if done < _WARM:
        return 0.1 + 0.9 * done / _WARM
    return 0.5 * (1.0 + math.cos(math.pi * (done - _WARM) / (1.0 - _WARM)))


def shifted(pixels: Tensor, most: int, stream: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` pixels along both sides, its border repeated, shape (n, c, h, w)."""
    if most == 0:
        return pixels
    n, _, h, w = pixels.shape
    moves = torch.randint(-most, most + 1, (2, n), generator=stream).to(pixels.device)
    rows = (torch.arange(h, device=pixels.device) + moves[0, :, None]).clamp(0, h - 1)
    columns = (torch.arange(w, device=pixels.device) + moves[1, :, None]).clamp(0, w - 1)
    images = torch.arange(n, device=pixels.device)
    return pixels.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
