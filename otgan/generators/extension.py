"""The extension of the optimal map between its cells, up to the singular set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, as_points, as_positive
from otgan.generators._facets import (
    Facets,
    SingularFacets,
    components,
    dihedral,
    estimate_facets,
    points_on,
    singular_threshold,
    unit_normals,
)
from otgan.generators.generator import (
    TargetGenerator,
    check_brenier,
    pack_with_potential,
    register_generator,
    tensors_under,
)
from otgan.measures.saving import unpack_source
from otgan.potential import BrenierPotential

if TYPE_CHECKING:
    from otgan._checks import ArrayLike
    from otgan.measures import Source

_SAMPLES = 32  # a target
_LEAST_SAMPLES = 1 << 15
_MOST_NEIGHBOURS = 5
_NUMBERS = 1 << 23  # float64 numbers held at a time by the map


class ExtensionGenerator(TargetGenerator):
    r"""Barycentres of neighbouring targets, but none across the singular facets of the power diagram.

    With ``s_j(x) = <x, y_j> + h_j``, i the best target of x and s_(k) its k-th best score,

        ``G(x) = sum_j w_j y_j / sum_j w_j``,   ``w_j = b_j (s_j(x) - s_(k)(x)) a(theta_ij)``

    over the k best targets j of i's component. The gap ``s_j - s_(k)`` is half a difference of squared power distances,
    so that the weights are Epanechnikov's kernel with the k-th neighbour as its reach: no bandwidth to choose, the same
    map in all units, and a target fades to weight 0 before it leaves the list. With k = d + 2 the image of x is a
    barycentre of d + 1 targets, in general a simplex.

    **What is not crossed.** u_h has a supporting plane with normal ``(y_i, -1)`` for each target; on the facet of
    cells i and j its gradient jumps by ``y_j - y_i``, and the planes meet at the dihedral angle

        ``cos theta_ij = (<y_i, y_j> + 1) / (|(y_i, -1)| |(y_j, -1)|)``.

    Facets of large angle approximate the singular set, where the optimal map is discontinuous: targets on its two
    sides belong to different modes, and their mean to none. By itself this angle depends on the origin and unit of y:
    scaled by q -> 0 it becomes ``q |y_i - y_j|``, scaled up it is the angle under which y_i and y_j are seen from the
    origin. It is therefore taken between the standardised targets ``(y - c) / q``, c their mean and q^2 their
    variance a coordinate on average, which makes it invariant to shift, scale and rotation. Angles remain smaller far
    from c than near it, for equal distances.

    Two targets mix only if their angle is below ``threshold``, and if regular facets join them (the component):
    neither a chain of neighbours that leads around a gap, nor closeness without contact, is enough. The factor ``a``
    is 1 up to half the threshold and falls linearly to 0 at it. Inside a component whose mixed targets are within
    half the threshold G is continuous; elsewhere it jumps by at most ``2 theta_ij / threshold`` in a weight across a
    regular facet (angles are a metric), and at singular facets it jumps as T_h does.

    Facets are found by Monte Carlo (see :class:`otgan.generators.Facets`): a cell that no sample met is a component of
    its own, whose target is copied. With n <= 2 every sample is a copy.

    Args:
        potential: u_h.
        source: mu.
        neighbours: k, from 2 (which gives T_h) on; d + 2, at most 5, when left out. More is smoother, and contracts
            the modes: of five Gaussians in d = 8 (1,500 targets) k = 3, 5, 8 and 16 keep 85, 72, 62 and 49 % of the
            variance inside a mode, and 3, 0.8, 0.2 and 0.02 % of the samples are copies.
        threshold: angle in radians, or ``math.inf`` for no singular facets. When left out it is the lowest valley of
            the facets' angles on a logarithmic scale, and inf if they form one hump.
        samples: drawn to find the facets; 32 a target, at least 32,768, when left out.
        seed: of these samples.
        facets: of an earlier generator with the same potential, instead of samples.

    Attributes:
        threshold: in radians; inf where no facet is singular.
        facets: what was found.
        component: number of each target's component, shape (n,).

    Source:
        An, Guo, Lei, Luo, Yau, Gu, "AE-OT: a new generative model based on extended semi-discrete optimal transport"
        (ICLR 2020), for the extension and the angle; Lei, Guo, An, Qi, Luo, Yau, Gu, "Mode collapse and regularity of
        optimal transportation maps" (2019), for the singular set. Weights, threshold and components are otgan's own.

    Example:
        >>> import torch
        >>> from otgan import Gaussian
        >>> y = torch.tensor([[-3.0], [-2.9], [-2.8], [2.8], [2.9], [3.0]])
        >>> u = BrenierPotential(y, torch.tensor([-0.29, -0.20, -0.15, -0.15, -0.20, -0.29]))
        >>> generator = ExtensionGenerator(u, Gaussian(1))
        >>> generator.singular_facets().pairs.tolist()
        [[2, 3]]
        >>> float(generator.sample(1000, seed=0).abs().min()) > 2.79
        True
    """

    normals: Tensor
    component: Tensor

    def __init__(
        self,
        potential: BrenierPotential,
        source: Source,
        *,
        neighbours: int | None = None,
        threshold: float | None = None,
        samples: int | None = None,
        seed: int = 0,
        facets: Facets | None = None,
    ) -> None:
        super().__init__(source)
        needed = "The extension is that of a BrenierPotential (p = 2), whose planes have angles"
        check_brenier(potential, source, needed)
        k = min(potential.dim + 2, _MOST_NEIGHBOURS) if neighbours is None else as_count(neighbours, "neighbours", 2)
        self.potential, self.neighbours = potential, k
        self.register_buffer("normals", unit_normals(potential), persistent=False)
        if facets is None:
            wanted = max(_SAMPLES * potential.n, _LEAST_SAMPLES) if samples is None else as_count(samples, "samples", 1)
            facets = estimate_facets(potential, source, self.normals, wanted, as_count(seed, "seed"))
        elif samples is not None:
            raise ValueError("facets are given and samples as well; samples are drawn to find facets: leave one out.")
        elif facets.centers.shape != potential.points.shape:
            raise ValueError(
                f"facets belong to targets of shape {tuple(facets.centers.shape)}, the potential has "
                f"{tuple(potential.points.shape)}; leave facets out."
            )
        self.facets = facets
        if threshold is None:
            self.threshold = singular_threshold(facets.angles, len(facets.pairs.unique()))
        else:
            self.threshold = _as_angle(threshold)
        self.register_buffer(
            "component", components(facets, self.threshold).to(potential.points.device), persistent=False
        )

    def forward(self, x: ArrayLike) -> Tensor:
        """``G(x)``, shape (m, d), in the wider precision of x and the targets; differentiable almost everywhere."""
        checked = as_points(x, "x", self.potential.dim, allow_empty=True)
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        k = min(self.neighbours, int(self.potential.heights.isfinite().sum()))
        rows = max(1, _NUMBERS // (k * (self.potential.dim + 1)))
        return torch.cat([self._block(block, k) for block in checked.split(rows)])

    def _block(self, x: Tensor, k: int) -> Tensor:
        index = self.potential.top_k(x, k).index
        x = x.to(device=index.device)
        points = self.potential.points
        near = points[index].double()
        heights = self.potential.heights[index]
        # Differences to the best target before the product with x: far from the origin, scores are large and equal.
        score = torch.einsum("md,mkd->mk", x.double(), near - near[:, :1]) + heights - heights[:, :1]
        weight = (score - score.min(dim=1, keepdim=True).values) * self.potential.weights[index]
        weight = weight * (self.component[index] == self.component[index[:, :1]])
        if self.threshold < math.inf:
            angle = dihedral(self.normals[index], self.normals[index[:, :1]])
            weight = weight * (2.0 - 2.0 * angle / self.threshold).clamp(0.0, 1.0)
        sums = weight.sum(dim=1, keepdim=True)
        alone = torch.nn.functional.one_hot(torch.zeros_like(index[:, 0]), k).to(weight)
        share = torch.where(sums > 0.0, weight / sums.clamp(min=torch.finfo(sums.dtype).tiny), alone)
        move = torch.einsum("mk,mkd->md", share, near - near[:, :1])
        return (near[:, 0] + move).to(torch.promote_types(x.dtype, points.dtype))

    def singular_facets(self) -> SingularFacets:
        """The facets whose angle is above the threshold, in the order of their pairs."""
        chosen = (self.facets.angles > self.threshold).nonzero()[:, 0]
        at = points_on(self.facets, chosen, self.potential, self.source)
        return SingularFacets(self.facets.pairs[chosen], self.facets.angles[chosen], self.facets.counts[chosen], at)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        singular = int((self.facets.angles > self.threshold).sum())
        return f"neighbours={self.neighbours}, threshold={self.threshold:.4g}, singular={singular}/{len(self.facets)}"

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Source, potential, settings and facets."""
        drawn, found = self.facets.pack()
        settings = {"neighbours": self.neighbours, "threshold": self.threshold, "facets": drawn}
        config, tensors = pack_with_potential(self, settings, self.potential)
        return config, tensors | found


def _as_angle(value: float) -> float:
    return math.inf if value == math.inf else as_positive(value, "threshold")


@register_generator("ExtensionGenerator")
def _load_extension(config: dict[str, Any], tensors: dict[str, Tensor]) -> ExtensionGenerator:
    threshold = config["threshold"]
    return ExtensionGenerator(
        BrenierPotential(**tensors_under(tensors, "potential.")),
        unpack_source(config["source"], tensors),
        neighbours=config["neighbours"],
        threshold=math.inf if threshold is None else threshold,  # JSON has no infinity
        facets=Facets.unpack(config["facets"], tensors_under(tensors, "facets.")),
    )
