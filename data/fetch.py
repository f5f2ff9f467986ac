"""Fetch MNIST and Fashion-MNIST into the folder of large data, and check them.

    python data/fetch.py mnist                # into OTGAN_DATA/mnist, or ../shared/data/mnist without it
    python data/fetch.py mnist fashion-mnist --into /data

Files that are there already, and are what they should be, are left alone. A file is put in place only after it was
checked: MNIST by SHA-256 and, as everything, by reading it (kind, size, number of images and labels).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from otgan.datasets import DataError
from otgan.images import read_idx

FILES = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}
HOSTS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
}
# Of the original files. Only what was computed from one stands here: Fashion-MNIST is checked by its content alone.
SHA256 = {
    "mnist/t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "mnist/t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    "mnist/train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "mnist/train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
}
_TIMEOUT = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the sets that are named; 0 when all are there and right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=sorted(HOSTS), help="what to fetch")
    parser.add_argument("--into", type=Path, help="folder that gets one subfolder a set")
    args = parser.parse_args(argv)
    named = os.environ.get("OTGAN_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    into = args.into if args.into is not None else Path(named) if named else beside
    wrong = 0
    for name in args.sets:
        for file, shape in FILES.items():
            wrong += not fetch(name, file, shape, into / name)
    print(f"Set OTGAN_DATA={into} to use {'it' if len(args.sets) == 1 else 'them'}." if not wrong else "Not complete.")
    return 1 if wrong else 0


def fetch(name: str, file: str, shape: tuple[int, ...], folder: Path) -> bool:
    """Put one file in place, and say how that went."""
    place = folder / file
    if place.exists():
        fault = check(place, name, file, shape)
        print(f"{place}: {'is there' if fault is None else f'is there but {fault}; delete it to fetch it again'}")
        return fault is None
    folder.mkdir(parents=True, exist_ok=True)
    part = place.with_name("part-" + file)
    for host in HOSTS[name]:
        try:
            with urllib.request.urlopen(host + file, timeout=_TIMEOUT) as answer, open(part, "wb") as out:
                while piece := answer.read(1 << 20):
                    out.write(piece)
            fault = check(part, name, file, shape)
        except OSError as error:
            fault = f"could not be fetched ({error})"
        if fault is None:
            os.replace(part, place)
            print(f"{place}: fetched from {host}")
            return True
        part.unlink(missing_ok=True)
        print(f"{host + file}: {fault}", file=sys.stderr)
    return False


def check(path: Path, name: str, file: str, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a file; None if nothing is."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = SHA256.get(f"{name}/{file}")
    if expected is not None and digest != expected:
        return f"has SHA-256 {digest}, expected {expected}"
    try:
        array = read_idx(path)
    except DataError as error:
        return f"is damaged: {error}"
    if array.dtype != np.uint8 or array.shape != shape:
        return f"holds {array.dtype} of shape {array.shape}, expected uint8 of shape {shape}"
    return None


if __name__ == "__main__":
    sys.exit(main())
