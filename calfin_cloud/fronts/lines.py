"""Edge probability in, ordered line out: skeleton, spanning tree, best path (calfin-method 6.2), in N log N."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import Delaunay, cKDTree
from skimage.morphology import skeletonize

from calfin_cloud.fronts.settings import FRAME, LineSettings
from calfin_cloud.resampling import border_distance, distance_inside, touched_parts

FEW = 0.02  # share of a scene in which no blob is large enough to slow the thinning
RELEASE = LineSettings()
TOUCHING = 1.5  # px; linked pixels closer than this are neighbours, farther ones have a gap between them


def extract_line(edge: NDArray[np.floating], settings: LineSettings = RELEASE) -> NDArray[np.intp]:
    """Extract the one line that collects most of an edge: (y, x) probability -> (n, 2) row, column in order.

    The line starts at the end nearer to the upper left corner. Empty (0, 2) where the skeleton has fewer than 4 pixels.
    """
    pixels = skeleton_pixels(edge, settings)
    links, gain = linked(pixels, edge[tuple(pixels.T)], scale_of(edge.shape), settings)
    line = pixels[best_path(links, gain, ends_at_leaf=settings.zero_probability is None)[0]]
    return line if len(line) == 0 or np.hypot(*line[0]) <= np.hypot(*line[-1]) else line[::-1]


def skeleton_pixels(edge: NDArray[np.floating], settings: LineSettings) -> NDArray[np.intp]:
    """Rows and columns (n, 2) of the skeleton of the edge above the threshold; NaN is no edge, nor is a blob.

    A blob holds a disc of the diameter `settings.max_width_px`; thinning it would take a sweep for each of its pixels.
    """
    mask = edge_mask(edge, settings)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty((0, 2), dtype=np.intp)
    is_more = mask.mean() > FEW
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # a sweep looks at all pixels, edge or not
    if settings.max_width_px is not None and is_more:
        radius = settings.max_width_px / 2 * scale_of(edge.shape)
        core = border_distance(mask) > radius
        if core.any():
            mask = mask & (distance_inside(~core) > radius + 1)
    first = np.array([rows[0], columns[0]], dtype=np.intp)
    return np.asarray(np.argwhere(skeletonize(mask)) + first, dtype=np.intp)


def edge_mask(edge: NDArray[np.floating], settings: LineSettings) -> NDArray[np.bool_]:
    """Pixels (y, x) of the edge: those above the threshold, and fainter ones that touch them."""
    if settings.faint_threshold is None:
        return np.asarray(edge > settings.edge_threshold)
    faint = min(settings.faint_threshold, settings.edge_threshold)
    return touched_parts(edge > faint, edge > settings.edge_threshold)


def linked(
    pixels: NDArray[np.intp], sure: NDArray[np.floating], scale: float, settings: LineSettings
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Link skeleton pixels (n, 2) to a tree, without the gaps too long for a bridge: links (m, 2), gain of each (m,).

    `sure` is the probability (n,) of each pixel, `scale` the pixels for one of the 256 px frame.
    """
    if len(pixels) < 4:
        return np.empty((0, 2), dtype=np.intp), np.empty(0)
    links = spanning_tree(pixels)
    length = np.hypot(*(pixels[links[:, 0]] - pixels[links[:, 1]]).T)
    if settings.max_gap_px is not None:
        bridged = length <= max(settings.max_gap_px * scale, TOUCHING)
        links, length = links[bridged], length[bridged]
    return links, path_gain(length, sure[links].mean(axis=1), scale, settings)


def normals_of(line: NDArray[np.floating], smooth_px: float = 0.0) -> NDArray[np.float64]:
    """Give unit vectors (n, 2) across a line of vertices (n, 2), seen through a Gaussian of so many vertices.

    Across (1, 0) it is (0, 1): to the right of a line x, y in an image.
    """
    course = np.asarray(line, dtype=float)
    if smooth_px:
        course = gaussian_filter1d(course, smooth_px, axis=0, mode="nearest")
    along = np.gradient(course, axis=0)
    return np.asarray(np.column_stack([-along[:, 1], along[:, 0]]) / np.maximum(np.hypot(*along.T), 1e-9)[:, None])


def scale_of(shape: tuple[int, ...]) -> float:
    """Pixels of an image for one pixel of the 256 px frame; not below 1/2, where lengths would be less than a pixel."""
    return max(0.5, max(shape) / FRAME)


def spanning_tree(pixels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Links (m, 2) of the Euclidean minimum spanning tree of pixels (n, 2), within the nearest quarter of all pixels.

    The original builds all n x n distances. Every link of a Euclidean spanning tree is also a side of the Delaunay
    triangulation, so that sorting its 3 n sides is enough. Links of equal length keep the order of their pixels.
    """
    n = len(pixels)
    # Corners far away give the triangulation an area even where all pixels lie on one line, and touch no short side.
    far = 20 * (np.ptp(pixels, axis=0).max() + 1) * np.array([[-1, -1], [-1, 2], [2, -1]]) + pixels.mean(axis=0)
    simplices = Delaunay(np.vstack([pixels, far])).simplices
    sides = np.sort(np.vstack([simplices[:, pair] for pair in ([0, 1], [1, 2], [0, 2])]), axis=1)
    sides = sides[sides[:, 1] < n]
    squared = ((pixels[sides[:, 0]] - pixels[sides[:, 1]]) ** 2).sum(axis=1)
    a, b = sides[np.lexsort((sides[:, 1], sides[:, 0], squared))].T
    first = np.append(True, (np.diff(a) != 0) | (np.diff(b) != 0))  # a side belongs to two triangles
    a, b = a[first], b[first]
    rank = coo_array((np.arange(1, len(a) + 1), (a, b)), shape=(n, n)).tocsr()  # ranks are distinct: one tree
    tree = minimum_spanning_tree(rank).tocoo()
    links = np.column_stack([tree.row, tree.col]).astype(np.intp)
    return links[_is_among_nearest(pixels, links, max(3, n // 4))]


def path_gain(
    length: NDArray[np.floating], sure: NDArray[np.floating], scale: float, settings: LineSettings
) -> NDArray[np.float64]:
    """Worth of each link: z^p - d^p for its length d, so that gaps must be repaid by collected pixels.

    Lengths are in pixels of a 256 px frame, whatever the size of the image, and the worth is per such a pixel. Where
    `settings.zero_probability` is set, z^p is scaled by how far the probability is above it.
    """
    worth = np.full(len(length), settings.path_zero**settings.path_power)
    if settings.zero_probability is not None:
        worth *= (sure - settings.zero_probability) / (1 - settings.zero_probability)
    return np.asarray(worth / scale - (length / scale) ** settings.path_power)


def best_path(
    links: NDArray[np.intp], gain: NDArray[np.float64], *, ends_at_leaf: bool = True
) -> tuple[NDArray[np.intp], float]:
    """Find the path of the greatest sum of gains in a forest; it may start anywhere, and end anywhere or at a leaf.

    One sweep from the leaves to the roots keeps, for every node, the best way down to an end and the best way down to a
    start; the path turns at the node where two ways through different children are worth most together.

    Parameters
    ----------
    links
        (m, 2) node numbers of a forest.
    gain
        (m,) of any sign.
    ends_at_leaf
        The original's rule: a path must go on until a leaf, even where that lowers the sum.

    Returns
    -------
    Node numbers in order, and the sum. Empty and -inf without links.
    """
    if len(links) == 0:
        return np.empty(0, dtype=np.intp), -np.inf
    names, numbers = np.unique(links, return_inverse=True)
    numbers = numbers.reshape(-1, 2)
    order, parent, to_parent = _rooted(numbers, gain, len(names))
    is_end = np.bincount(numbers.ravel()) == 1 if ends_at_leaf else np.ones(len(names), dtype=bool)
    to_end, to_start = np.where(is_end, 0.0, -np.inf).tolist(), [0.0] * len(names)
    end_child, start_child = [-1] * len(names), [-1] * len(names)
    best, turn = -np.inf, (-1, -1, -1)
    for v in reversed(order):
        p = parent[v]
        if p < 0:
            continue
        end, start = to_parent[v] + to_end[v], to_parent[v] + to_start[v]
        if end + to_start[p] > best:
            best, turn = end + to_start[p], (start_child[p], p, v)
        if start + to_end[p] > best:
            best, turn = start + to_end[p], (v, p, end_child[p])
        if end > to_end[p]:
            to_end[p], end_child[p] = end, v
        if start > to_start[p]:
            to_start[p], start_child[p] = start, v
    path = [*_descend(turn[0], start_child)[::-1], turn[1], *_descend(turn[2], end_child)]
    return names[path], float(best)


def length_of(line: NDArray[np.floating]) -> float:
    """Length in px of a line (n, 2)."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def fill_gaps(line: NDArray[np.intp]) -> NDArray[np.intp]:
    """Put a pixel at every step of a line (n, 2) row, column, so that bridged gaps weigh by their length."""
    if len(line) < 2:
        return line
    steps = np.maximum(np.abs(np.diff(line, axis=0)).max(axis=1), 1)
    at = np.append(0, np.cumsum(steps))
    full = np.arange(at[-1] + 1)
    between = np.column_stack([np.interp(full, at, axis) for axis in line.T])
    return np.asarray(np.rint(between), dtype=np.intp)


def _descend(node: int, child: list[int]) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = child[node]
    return path


def _rooted(links: NDArray[np.intp], gain: NDArray[np.float64], n: int) -> tuple[list[int], list[int], list[float]]:
    """Nodes of a forest from the roots to the leaves, the parent of each (-1 for a root) and the gain of that link."""
    ones = np.ones(len(links), dtype=np.int8)
    _, part = connected_components(coo_array((ones, tuple(links.T)), shape=(n, n)), directed=False)
    roots = np.unique(part, return_index=True)[1]
    every = np.vstack([links, np.column_stack([np.full(len(roots), n), roots])])  # node n above all roots
    graph = coo_array((np.ones(len(every), dtype=np.int8), tuple(every.T)), shape=(n + 1, n + 1)).tocsr()
    order, parent = breadth_first_order(graph, n, directed=False)
    parent = np.where(parent == n, -1, parent)[:n]
    child = np.where(parent[links[:, 0]] == links[:, 1], links[:, 0], links[:, 1])
    to_parent = np.zeros(n)
    to_parent[child] = gain
    return order[1:].tolist(), parent.tolist(), to_parent.tolist()


def _is_among_nearest(pixels: NDArray[np.intp], links: NDArray[np.intp], k: int) -> NDArray[np.bool_]:
    """Whether one end of each link is among the k nearest pixels of the other, itself included."""
    length = np.hypot(*(pixels[links[:, 0]] - pixels[links[:, 1]]).T)
    long = np.flatnonzero(length**2 > k / 4)  # a disc of radius r holds fewer than 4 r^2 pixels for r > 2
    near = np.ones(len(links), dtype=bool)
    if len(long):
        tree, within = cKDTree(pixels), length[long] * (1 - 1e-9)
        near[long] = (
            np.minimum(*(tree.query_ball_point(pixels[links[long, i]], within, return_length=True) for i in (0, 1))) < k
        )
    return near
