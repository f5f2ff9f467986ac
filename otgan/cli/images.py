"""Images on the command line: what ``otgan fit --latent`` and ``otgan sample`` do with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from otgan.cli.common import (
    FAILED,
    INTERRUPTED,
    NOT_CONVERGED,
    OK,
    Place,
    UsageError,
    certificate_table,
    flag,
    note,
    optional,
    rescued,
    save_picture,
    say,
    say_json,
    watched,
    whole_file,
    writable_folder,
)

if TYPE_CHECKING:
    from torch import Tensor

    from otgan.cli.fit import Fit
    from otgan.cli.sample import Sample
    from otgan.images import Images
    from otgan.latent import LatentOTGAN

KIND = "LatentOTGAN"
_SHOWN = 100
_ACROSS = 10


@dataclass(frozen=True, kw_only=True)
class ImageFlags:
    """Flags of `otgan fit` for images."""

    latent: Annotated[int | None, optional("COUNT")] = None
    """FILE holds images (folder, IDX, .npy, .npz): learn codes of this length."""
    size: Annotated[int | None, optional("PIXELS")] = None
    """Of images: cut them to squares and resample to this side."""
    channels: Annotated[int | None, optional("{1,3}")] = None
    """Of images: 1 grey, 3 colour; as they are when left out."""
    by_class: Annotated[bool, flag] = False
    """Of images: one transport map a class (subfolder, or label)."""
    autoencoder_steps: Annotated[int | None, optional("COUNT")] = None
    """Of images: training steps of the autoencoder at most."""


@dataclass(frozen=True, kw_only=True)
class SampleFlags:
    """Flags of `otgan sample` for images."""

    label: Annotated[str | None, optional("CLASS")] = None
    """Of images that were fitted by class: this class only."""


def wants_images(command: Fit) -> bool:
    """Whether `otgan fit` was asked for images."""
    if command.latent is not None:
        return True
    if command.file.is_dir():
        raise UsageError(f"{command.file} is a folder: for its images pass --latent 32, the length of their codes.")
    given = [
        name
        for name, value in (
            ("--size", command.size),
            ("--channels", command.channels),
            ("--by-class", command.by_class or None),
            ("--autoencoder-steps", command.autoencoder_steps),
        )
        if value is not None
    ]
    if given:
        raise UsageError(f"{given[0]} is for images: pass --latent 32 as well, the length of their codes.")
    return False


def holds_images(run: Path) -> bool:
    """Whether a folder was written by `otgan fit --latent`."""
    try:
        return bool(json.loads((run / "config.json").read_text(encoding="utf-8"))["kind"] == KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whatever it is, other commands say it


# ---------------------------------------------------------------- fit


def fit_images(command: Fit) -> int:
    """Read, train the autoencoder, solve, fit the generator, save, show."""
    from otgan.datasets import DataError
    from otgan.generators import OTGAN
    from otgan.images import read
    from otgan.latent import Autoencoder, LatentOTGAN
    from otgan.report import provenance

    _refuse(command)
    try:
        images = read(command.file, command.size, command.channels, key=command.key)
    except DataError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        source = command._source(command.latent or 0)
        kind = getattr(command, "generator", None) or "auto"
        transport = OTGAN(source, kind, method=command.method, tol=command.tol, seed=command.seed)
        model = LatentOTGAN(Autoencoder(command.latent or 0, seed=command.seed), transport)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    name = command.file.name.partition(".")[0] or "images"
    place = Place.of(command.out if command.out is not None else Path("runs") / name, command.overwrite)
    note(f"{command.file}: {images!r}.")
    training = {} if command.autoencoder_steps is None else {"steps": command.autoencoder_steps}
    try:
        model.fit(
            images,
            by_class=command.by_class,
            training=training,
            max_time=command.max_time,
            progress=command.progress and watched(),
            checkpoint=command.checkpoint,
        )
    except (Exception, KeyboardInterrupt) as error:
        _keep_autoencoder(model, place.folder)
        place.withdraw()
        if isinstance(error, (ValueError, TypeError)) and not isinstance(error, DataError):
            raise UsageError(str(error)) from error  # settings that do not fit; the images are checked by now
        raise

    def save(folder: Path) -> None:
        model.save(folder)
        provenance.write(folder, "fit", command, [command.file])

    folder, as_asked = place.saved(save, [command.file])
    pictures = _pictures(model, images, folder, command.seed)
    report = describe(model)
    if command.json:
        say_json({**report, "run": folder, "pictures": pictures})
    else:
        say(summary(model))
        say(f"Saved in {folder}, pictures too: {', '.join(path.name for path in pictures)}.")
        say(f"Next: otgan sample {folder} -n 100")
    if report["autoencoder"]["status"] == "interrupted" or any(one.interrupted for one in model.models):
        return INTERRUPTED
    if not as_asked:
        return FAILED
    return OK if all(one["converged"] for one in report["transport"]) else NOT_CONVERGED


def _keep_autoencoder(model: LatentOTGAN, folder: Path) -> None:
    """Save an autoencoder whose training is done, when what came after it failed: it took most of the time."""
    from otgan.latent import Autoencoder

    trained = model.autoencoder
    if isinstance(trained, Autoencoder) and trained.report is not None:
        place = rescued(trained.save, folder / "autoencoder") or folder / "autoencoder"
        note(f"The trained autoencoder is saved in {place}; LatentOTGAN(otgan.load({str(place)!r})) goes on from it.")


def _refuse(command: Fit) -> None:
    """Flags that images have no use for."""
    if command.latent is not None and command.latent < 1:
        raise UsageError(f"--latent must be at least 1, got {command.latent}.")
    if command.autoencoder_steps is not None and command.autoencoder_steps < 1:
        raise UsageError(f"--autoencoder-steps must be at least 1, got {command.autoencoder_steps}.")
    given = {
        "--p": command.p != 2.0,
        "--weights": command.weights is not None,
        "--weights-key": command.weights_key is not None,
        "--dtype": command.dtype is not None,
        "--max-iter": command.max_iter is not None,
        "--plots": command.plots,
    }
    for name, there in given.items():
        if there:
            raise UsageError(f"{name} is for points; leave it out with --latent.")


def describe(model: LatentOTGAN) -> dict[str, Any]:
    """A fitted model in plain numbers."""
    from otgan.cli.fit import describe as describe_result
    from otgan.latent import Autoencoder

    autoencoder = model.autoencoder
    assert isinstance(autoencoder, Autoencoder) and autoencoder.report is not None
    trained = {name: value for name, value in vars(autoencoder.report).items() if name != "history"}
    parts = []
    for k, one in enumerate(model.models):
        scores = {name: score.total for name, score in one.scores.items()}
        more = {"generator": type(one.generator).__name__, "scores": scores}
        parts.append(describe_result(one.result) | more | ({"class": model.names[k]} if model.names else {}))
    return {"autoencoder": {"latent": autoencoder.latent, "shape": autoencoder.shape, **trained}, "transport": parts}


def summary(model: LatentOTGAN) -> str:
    """What ran, how it ended, what is certified."""
    report = describe(model)
    trained = report["autoencoder"]
    c, h, w = trained["shape"]
    lines = [
        f"autoencoder: {c} x {h} x {w} to codes of length {trained['latent']}, {trained['epochs']:.1f} epochs in "
        f"{trained['seconds']:.0f} s ({trained['status']}); held-out error {trained['held_out']:.5f} a pixel, squared."
    ]
    for k, one in enumerate(model.models):
        title = f"class {model.names[k]}: " if model.names else ""
        result = one.result
        lines.append(f"{title}{result.method}: {result.message} ({result.n_iter} iterations, {result.seconds:.1f} s)")
        if not model.names:
            lines.append(certificate_table(result.certificate, "certificate, on samples that the solver never saw:"))
        lines.append(f"{title}generator: {type(one.generator).__name__}({one.generator.extra_repr()})")
    return "\n".join(lines)


def _pictures(model: LatentOTGAN, images: Images, folder: Path, seed: int) -> list[Path]:
    """New images, and training images beside what the autoencoder makes of them."""
    from otgan import plot

    real = images.floats()[:: max(len(images) // (2 * _ACROSS), 1)][: 2 * _ACROSS]
    again = model.autoencoder.reconstruct(real).cpu()
    pair = ("images", "after the\nautoencoder")
    return [
        save_grid(model.sample(_SHOWN, seed), folder / "samples.png"),
        save_picture(
            lambda: plot.beside(channels_last(real), channels_last(again), labels=pair), folder / "reconstruction.png"
        ),
    ]


# ---------------------------------------------------------------- sample


def sample_images(command: Sample) -> int:
    """Draw, and write a grid of pictures and an array."""
    import numpy as np

    from otgan.cli.runs import read_run
    from otgan.latent import LatentOTGAN

    if command.reg is not None or command.generator is not None:
        raise UsageError("Images are drawn by the generator that was fitted; leave out --generator and --reg.")
    if command.out == "-":
        raise UsageError("--out - prints points; images need a file, .npy or .png.")
    path = Path(command.out) if command.out is not None else command.run_ / "samples.npy"
    if path.suffix.lower() not in (".npy", ".png"):
        raise UsageError(f"--out must end in .npy or .png for images, got {path}.")
    model = read_run(command.run_)
    assert isinstance(model, LatentOTGAN)
    writable_folder(path.parent)
    label = command.label
    if label is not None and label not in model.names:
        known = f"the classes are {', '.join(model.names)}" if model.names else "it was fitted without --by-class"
        raise UsageError(f"{command.run_} has no class {label!r}; {known}.")
    images = model.sample(command.n, command.seed, label).cpu()
    array, grid = path.with_suffix(".npy"), path.with_suffix(".png")
    try:
        with whole_file(array) as file:
            np.save(file, (images * 255.0).round().byte().numpy(), allow_pickle=False)
    except OSError as error:
        raise UsageError(f"Cannot write {array}: {error.strerror or error}.") from None
    save_grid(images[:_SHOWN], grid)
    if command.json:
        shape = list(images.shape)
        say_json({"out": array, "picture": grid, "shape": shape, "seed": command.seed, "label": label})
    else:
        c, h, w = images.shape[1:]
        some = f"the first {_SHOWN} of them" if len(images) > _SHOWN else "all of them"
        say(f"{len(images):,} images of {c} x {h} x {w} in {array} (uint8, n x c x h x w), {some} in {grid}.")
    return OK


# ---------------------------------------------------------------- pictures


def channels_last(images: Tensor) -> Tensor:
    """(n, h, w) of grey images, (n, h, w, 3) of colours: what plots take."""
    return images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1)


def save_grid(images: Tensor, path: Path) -> Path:
    """Images side by side."""
    from otgan import plot

    shown = channels_last(images.cpu())
    return save_picture(lambda: plot.image_grid(shown, n_cols=_ACROSS), path)
