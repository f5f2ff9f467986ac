"""Axes, light and orientation of figures in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

from otgan.plot._style import DPI

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

Up = Literal["x", "y", "z"]

_ELEVATION, _AZIMUTH = 22.0, -58.0  # degrees
_LIGHT = np.array([0.05, -0.75, 0.95])  # to the light, z up: from above, over the left shoulder of the viewer
_AMBIENT = 0.48
_SIDE = 6.4  # inches
_KEYED = 0.86  # share of a figure's width that its axes get beside a colour bar or a legend


def open_axes_3d(ax: Axes | None, up: Up, keyed: bool = False) -> Any:
    """``ax`` itself, or 3-D axes that fill a new figure and look down on the data with ``up`` upright.

    A figure that is ``keyed`` leaves room on the right.
    """
    if ax is None:
        figure = plt.figure(figsize=(_SIDE / _KEYED if keyed else _SIDE, _SIDE), dpi=DPI)
        made: Any = figure.add_axes((0.0, 0.0, _KEYED if keyed else 1.0, 1.0), projection="3d")
        made.view_init(elev=_ELEVATION, azim=_AZIMUTH, vertical_axis=up)
        return made
    if not isinstance(ax, Axes3D):
        raise TypeError(
            f"ax must be 3-D matplotlib Axes, got {type(ax).__name__}: make them by "
            "plt.subplots(subplot_kw={'projection': '3d'})."
        )
    return ax


def checked_up(up: str) -> Up:
    """Name of the upright axis."""
    if up not in ("x", "y", "z"):
        raise ValueError(f"up must be 'x', 'y' or 'z', the axis that points upwards, got {up!r}.")
    return up  # type: ignore[return-value]


def fit_view(ax: Any, points: Floats) -> None:
    """Equal scales, no axes, and as large as ``points``, shape (k, 3), allow in the present view."""
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum(high - low, 1e-9 * float((high - low).max()) or 1.0)
    for axis, a, b in zip("xyz", low, low + size, strict=True):
        getattr(ax, f"set_{axis}lim")(a, b)
    ax.set_axis_off()
    zoom = 1.0
    for _ in range(3):  # perspective makes the size on paper not quite proportional to the zoom
        ax.set_box_aspect(size, zoom=zoom)
        seen = np.column_stack([points, np.ones(len(points))]) @ ax.get_proj().T
        reach = np.abs(seen[:, :2] / seen[:, 3:]).max(axis=0)
        window = np.abs([ax.viewLim.intervalx, ax.viewLim.intervaly])
        zoom *= 0.98 * float((window.min(axis=1) / reach).min())
    ax.set_box_aspect(size, zoom=zoom)


def lit(rgb: Floats, normals: Floats, up: Up) -> Floats:
    """Colours, shape (k, 3), of surfaces with outward ``normals``, shape (k, 3), under one soft distant light."""
    light = np.roll(_LIGHT / np.linalg.norm(_LIGHT), "xyz".index(up) - 2)  # the cyclic order of matplotlib's axes
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    towards = (normals / np.where(length > 0.0, length, 1.0)) @ light
    bright = _AMBIENT + (1.0 - _AMBIENT) * np.clip(0.5 + 0.5 * towards, 0.0, 1.0) ** 1.3
    return np.clip(rgb * bright[:, None], 0.0, 1.0)


def polygon_normals(corners: Floats, offsets: Integers) -> Floats:
    """Twice the vector areas of plane polygons in space, shape (f, 3), by Newell's formula ``sum p_k x p_{k+1}``.

    Args:
        corners: of all polygons one after the other, shape (c, 3).
        offsets: polygon f owns ``corners[offsets[f] : offsets[f + 1]]``, shape (f + 1,).
    """
    following = np.arange(1, len(corners) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    origin = np.repeat(corners[offsets[:-1]], np.diff(offsets), axis=0)
    return np.asarray(np.add.reduceat(np.cross(corners - origin, corners[following] - origin), offsets[:-1], axis=0))


class Faces(Poly3DCollection):
    """Polygons in space; those of closed bodies are left out while they look away from the viewer.

    That is decided anew at every drawing, so that the figure can be turned. It halves the work, and no back shows
    through the front where polygons are drawn in the order of their mean distance.

    Args:
        polygons: each of shape (k, 3).
        rgb: shape (f, 3).
        edge: shape (f, 3), or one colour; ``None`` for the colours of the faces.
        width: of the edges, in points.
        normals: outward normals of closed bodies, shape (f, 3); ``None`` to draw every polygon.
        gid: name of the collection.

    Attributes:
        polygons: as given.
        rgb: as given.
        edges: colours of the edges, shape (f, 3).
        normals: as given.
    """

    def __init__(
        self, polygons: list[Floats], rgb: Floats, edge: Any, width: float, normals: Floats | None, gid: str
    ) -> None:
        edges = rgb if edge is None else np.broadcast_to(to_rgb(edge) if isinstance(edge, str) else edge, rgb.shape)
        super().__init__(polygons, facecolors=rgb, edgecolors=edges, linewidths=width, shade=False, gid=gid)
        self.set_joinstyle("round")
        self.polygons, self.normals = polygons, normals
        self.rgb, self.edges = rgb, edges

    def facing(self) -> NDArray[np.bool_]:
        """Which polygons look at the viewer, shape (f,)."""
        if self.normals is None:
            return np.ones(len(self.polygons), dtype=bool)
        projection = np.asarray(self.axes.get_proj())
        viewer = np.linalg.svd(projection[[0, 1, 3]])[2][-1]  # the point whose image is undefined
        far = abs(viewer[3]) < 1e-9 * np.abs(viewer[:3]).max()  # parallel projection: a direction
        viewer = viewer * (-np.sign(projection[2] @ viewer) if far else np.sign(viewer[3]))
        places = np.array([polygon[0] for polygon in self.polygons])
        return np.asarray(self.normals @ viewer[:3] > (self.normals * places).sum(axis=1) * viewer[3])

    def do_3d_projection(self) -> Any:
        """Project what is seen; called by matplotlib before each drawing."""
        if self.normals is not None:
            chosen = self.facing()
            self.set_verts([self.polygons[f] for f in np.flatnonzero(chosen)])
            self.set_facecolor(self.rgb[chosen])
            self.set_edgecolor(self.edges[chosen])
        return super().do_3d_projection()
