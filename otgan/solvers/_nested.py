"""Start from fewer targets: a random eighth of them is solved first, and hands its potential on to all.

A pass over the scores of n / 8 targets and samples is 64 times shorter, so that the solve of the part is nearly free.
The others start where they touch its potential u, ``h_i = min_x u(x) - <x, y_i>`` over samples (c-transform): u stays
what it is at every sample, and no target starts out of reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from otgan import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from otgan.solvers._scores import Scores

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

#: Targets of the whole over those of the part.
RATIO = 8
_BLOCK = 1 << 16


def part(y: Tensor, n_part: int) -> tuple[Indices, Indices]:
    """Random anchors, shape (n_part,), and for each target, shape (n,), the nearest of them, by its number."""
    anchors = np.sort(np.random.default_rng(0).permutation(len(y))[:n_part])
    some = y[torch.from_numpy(anchors).to(y.device)]
    norms = -0.5 * some.square().sum(dim=1)
    label = torch.cat([kernels.assign(block, some, norms).index for block in y.split(_BLOCK)]).cpu().numpy()
    label[anchors] = np.arange(n_part)
    return anchors, label


def handed_on(x: Tensor, scores: Scores, anchors: Indices, h: Floats) -> Floats:
    """Heights of all targets, shape (n,), that touch the potential of the anchors over the samples x, shape (m, d)."""
    some = scores.y[torch.from_numpy(anchors).to(scores.y.device)]
    at = torch.from_numpy(h).to(some)
    value = torch.cat([kernels.assign(block, some, at).value for block in x.split(_BLOCK)])
    scores.count += len(x) * len(anchors)
    rows = np.arange(scores.n)
    out = np.concatenate([scores.touching(x, value, rows[i : i + _BLOCK]) for i in range(0, scores.n, _BLOCK)])
    out[anchors] = np.maximum(out[anchors], h)
    return out
