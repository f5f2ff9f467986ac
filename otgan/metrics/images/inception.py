"""The FID proper: Frechet distance in features of the Inception network, for those who have its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otgan.metrics.frechet import frechet_distance
from otgan.metrics.images._pixels import as_pixels

if TYPE_CHECKING:
    from torch import Tensor

_FEATURES = "2048"
_ROWS = 64


def fid(samples: Any, real: Any, weights: str | Path, *, device: str | torch.device | None = None) -> float:
    """Frechet Inception distance: :func:`otgan.metrics.frechet_distance` of the 2,048 pooled features.

    The network is torch-fidelity's port of the one that the published FIDs use, with its resizing to 299 x 299. Grey
    images are shown as three equal channels. Customary are 50,000 images; with fewer than 2,049 the covariances are
    singular, and the bias depends on the sizes, which is why values at different sizes cannot be compared.

    Args:
        samples: bytes or floats in [0, 1], shape (m, c, h, w), c = 1 or 3.
        real: likewise, of the same shape (c, h, w).
        weights: file of the network's weights, ``weights-inception-2015-12-05-6726825d.pth`` of the torch-fidelity
            project; nothing is fetched. It is torch-fidelity that reads it, by unpickling: pass one that you trust.
        device: where the network runs.

    Raises:
        ImportError: without torch-fidelity: ``pip install "otgan[fid]"``.
        FileNotFoundError: without the weights.

    Source:
        Heusel et al. (NeurIPS 2017); Obukhov, Seitzer, Wu, Zhydenko, Kyl, Lin, "High-fidelity performance metrics for
        generative models in PyTorch" (2020).
    """
    x = as_pixels(samples, "samples")
    y = as_pixels(real, "real", tuple(x.shape[1:]))
    if x.shape[1] not in (1, 3):
        raise ValueError(f"samples must have 1 or 3 channels, got {x.shape[1]}.")
    network = _network(Path(weights)).to(device or x.device)
    return frechet_distance(_features(network, x), _features(network, y))


def _network(weights: Path) -> torch.nn.Module:
    """torch-fidelity's extractor with these weights."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(
            'The FID needs the package torch-fidelity: pip install "otgan[fid]". Without it, evaluate_images() '
            "compares images in the features of a classifier of your own."
        ) from error
    if not weights.is_file():
        raise FileNotFoundError(
            f"There are no Inception weights in {weights}; they are a file of the torch-fidelity project, "
            "weights-inception-2015-12-05-6726825d.pth in its releases."
        )
    made = FeatureExtractorInceptionV3("inception-v3-compat", [_FEATURES], feature_extractor_weights_path=str(weights))
    network: torch.nn.Module = made.eval()
    return network


@torch.no_grad()
def _features(network: torch.nn.Module, pixels: Tensor) -> Tensor:
    device = next(network.parameters()).device
    found = []
    for part in pixels.split(_ROWS):
        found.append(network(part.expand(-1, 3, -1, -1).contiguous().to(device))[0].cpu())
    return torch.cat(found)
