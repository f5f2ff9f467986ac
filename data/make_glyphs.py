"""Make glyphs.npz: 600 grey images of 28 x 28 pixels, six classes of simple signs, drawn by formulas.

    python data/make_glyphs.py            # writes data/glyphs.npz, the same bytes of images each time
    python data/make_glyphs.py --check    # compares what is there with what would be written

Each sign is a distance in the plane, turned, moved, stretched and drawn with a pen of random thickness; nothing comes
from anywhere else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE, EACH, SEED = 28, 100, 0
NAMES = ("bar", "ring", "cross", "triangle", "wave", "disc")
PLACE = Path(__file__).resolve().parent / "glyphs.npz"


def segment(x: Floats, y: Floats, a: tuple[float, float], b: tuple[float, float]) -> Floats:
    """Distance to the segment from a to b."""
    ux, uy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x - a[0]) * ux + (y - a[1]) * uy) / (ux * ux + uy * uy), 0.0, 1.0)
    return np.hypot(x - a[0] - t * ux, y - a[1] - t * uy)


def triangle(x: Floats, y: Floats) -> Floats:
    """Distance to the outline of an equilateral triangle."""
    corners = [(np.sin(angle), -np.cos(angle)) for angle in 2 * np.pi * np.arange(3) / 3]
    return np.minimum.reduce([segment(x, y, corners[k], corners[(k + 1) % 3]) for k in range(3)])


def wave(x: Floats, y: Floats) -> Floats:
    """About the distance to one period of a sine."""
    inside = np.abs(y - 0.45 * np.sin(np.pi * x)) / np.sqrt(1 + (0.45 * np.pi * np.cos(np.pi * x)) ** 2)
    return np.hypot(inside, np.maximum(np.abs(x) - 1.0, 0.0))


SIGNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "bar": lambda x, y: segment(x, y, (0.0, -1.0), (0.0, 1.0)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.8),
    "cross": lambda x, y: np.minimum(segment(x, y, (-0.9, 0.0), (0.9, 0.0)), segment(x, y, (0.0, -0.9), (0.0, 0.9))),
    "triangle": triangle,
    "wave": wave,
    "disc": lambda x, y: np.maximum(np.hypot(x, y) - 0.6, 0.0),
}


def draw(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One sign, shape (28, 28)."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    size, pen = rng.uniform(6.5, 9.5), rng.uniform(0.8, 1.8)
    angle, slant = rng.normal(0.0, 0.2), rng.normal(0.0, 0.15)
    x, y = columns - rng.normal(0.0, 1.2), rows - rng.normal(0.0, 1.2)
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    x, y = (x + slant * y) / (size * rng.uniform(0.85, 1.15)), y / size
    distance = SIGNS[name](x, y) * size - pen  # in pixels
    return np.round(255.0 * np.clip(0.5 - distance, 0.0, 1.0)).astype(np.uint8)


def make() -> dict[str, NDArray[np.generic]]:
    """All arrays of the file."""
    rng = np.random.default_rng(SEED)
    labels = np.tile(np.arange(len(NAMES), dtype=np.uint8), EACH)
    images = np.stack([draw(NAMES[k], rng) for k in labels])
    return {"images": images, "labels": labels, "names": np.array(NAMES)}


def main(argv: Sequence[str] | None = None) -> int:
    """Write, or compare; 0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arrays = make()
    if not parser.parse_args(argv).check:
        np.savez_compressed(PLACE, **arrays)
        print(f"{PLACE}: {len(arrays['images'])} images, {PLACE.stat().st_size:,} bytes")
        return 0
    with np.load(PLACE, allow_pickle=False) as there:
        # Sines of another library may differ in the last bit, which can turn one grey level.
        apart = np.abs(there["images"].astype(int) - arrays["images"].astype(int)).max()
        same = apart <= 1 and np.array_equal(there["labels"], arrays["labels"])
    print(f"{PLACE}: {'as made' if same else 'differs'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
