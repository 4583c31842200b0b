"""Edge probability in, ordered line out: skeleton, spanning tree, best path (calfin-method 6.2), in N log N."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import Delaunay, cKDTree
from skimage.morphology import skeletonize

from calfin_cloud.fronts.settings import FRAME, TraceSettings

NEIGHBOURS = 12  # enough for all links between touching skeleton pixels; the triangulation brings the longer ones


def extract_line(edge: NDArray[np.floating], settings: TraceSettings | None = None) -> NDArray[np.intp]:
    """Extract the one line that collects most of an edge: (y, x) probability -> (n, 2) row, column in order.

    The line starts at the end nearer to the upper left corner. Empty (0, 2) where the skeleton has fewer than 4 pixels.
    """
    settings = settings or TraceSettings()
    pixels = np.argwhere(skeletonize(np.nan_to_num(edge) > settings.edge_threshold))
    if len(pixels) < 4:
        return np.empty((0, 2), dtype=np.intp)
    tree = spanning_tree(pixels)
    gain = path_gain(pixels, tree, edge, settings)
    line = pixels[best_path(tree, gain)[0]]
    return line if np.hypot(*line[0]) <= np.hypot(*line[-1]) else line[::-1]


def spanning_tree(pixels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Links (m, 2) of the Euclidean minimum spanning tree of pixels (n, 2), within the nearest quarter of all pixels.

    The original builds all n x n distances; the tree is the same from nearest neighbours and a triangulation, which
    holds every link of a Euclidean spanning tree.
    """
    n = len(pixels)
    tree = cKDTree(pixels)
    _, near = tree.query(pixels, k=min(n, NEIGHBOURS))
    links = [np.column_stack([np.repeat(np.arange(n), near.shape[1]), near.ravel()])]
    # QJ joggles the points, since pixels lie on straight lines and circles by the dozen.
    simplices = Delaunay(pixels, qhull_options="QJ Pp").simplices
    links += [simplices[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]
    a, b = np.unique(np.sort(np.vstack(links), axis=1), axis=0).T
    a, b = a[a != b], b[a != b]
    length = np.hypot(*(pixels[a] - pixels[b]).T)
    spanning = minimum_spanning_tree(csr_array((length, (a, b)), shape=(n, n))).tocoo()
    found = np.column_stack([spanning.row, spanning.col]).astype(np.intp)
    return found[_is_among_nearest(tree, pixels, found, max(3, n // 4))]


def path_gain(
    pixels: NDArray[np.intp], links: NDArray[np.intp], edge: NDArray[np.floating], settings: TraceSettings
) -> NDArray[np.float64]:
    """Worth of each link: z^p - d^p for its length d, so that gaps must be repaid by collected pixels.

    Lengths are in pixels of a 256 px frame, whatever the size of `edge`, and the worth is per such a pixel. Where
    `settings.zero_probability` is set, z^p is scaled by how far the edge's probability is above it.
    """
    scale = max(edge.shape) / FRAME
    length = np.hypot(*(pixels[links[:, 0]] - pixels[links[:, 1]]).T) / scale
    worth = np.full(len(links), settings.path_zero**settings.path_power)
    if settings.zero_probability is not None:
        sure = edge[tuple(pixels[links].reshape(-1, 2).T)].reshape(-1, 2).mean(axis=1)
        worth *= (sure - settings.zero_probability) / (1 - settings.zero_probability)
    return np.asarray((worth - length**settings.path_power) / scale)


def best_path(links: NDArray[np.intp], gain: NDArray[np.float64]) -> tuple[NDArray[np.intp], float]:
    """Find the path of the greatest sum of gains in a forest; it ends at a leaf but may start anywhere.

    One sweep from the leaves: below every node the best way that ends at a leaf, and the best that ends anywhere; the
    path has its top where the two together are worth most.

    Parameters
    ----------
    links
        (m, 2) node numbers of a forest.
    gain
        (m,) of any sign.

    Returns
    -------
    Node numbers in order, and the sum. Empty without links.
    """
    if len(links) == 0:
        return np.empty(0, dtype=np.intp), -np.inf
    order, parent, to_parent = _rooted(links, gain)
    n = len(parent)
    has_below = np.zeros(n, dtype=bool)
    has_below[parent[parent >= 0]] = True
    # Best and second best (worth, child) on the way to a leaf and to a start, for each node.
    to_leaf, to_start = [[(-np.inf, -1), (-np.inf, -1)] for _ in range(n)], [[(0.0, -1), (0.0, -1)] for _ in range(n)]
    best, top = (-np.inf, -1, -1), -1
    for v in order[::-1]:
        here = _best_pair(to_leaf[v], to_start[v])
        if here[0] > best[0]:
            best, top = here, v
        p = parent[v]
        if p >= 0:
            leaf = to_leaf[v][0][0] if has_below[v] else 0.0
            _insert(to_leaf[p], (to_parent[v] + leaf, v))
            _insert(to_start[p], (to_parent[v] + to_start[v][0][0], v))
        elif has_below[v] and to_leaf[v][1][1] < 0 and to_start[v][0][0] > best[0]:
            # A root with one child is a leaf itself: the path may end there.
            best, top = (to_start[v][0][0], -1, to_start[v][0][1]), v
    _, first, last = best
    ways = [_descend(first, to_leaf), _descend(last, to_start)]
    return np.array([*ways[1][::-1], top, *ways[0]], dtype=np.intp), float(best[0])


Way = tuple[float, int]


def _best_pair(to_leaf: list[Way], to_start: list[Way]) -> tuple[float, int, int]:
    """Greatest worth of a way to a leaf and one to a start through different children, and these children."""
    pairs = [(a[0] + b[0], a[1], b[1]) for a in to_leaf for b in to_start if a[1] != b[1] or a[1] < 0]
    return max(pairs, key=lambda pair: pair[0])


def _insert(ways: list[Way], way: Way) -> None:
    if way[0] > ways[0][0]:
        ways[:] = [way, ways[0]]
    elif way[0] > ways[1][0]:
        ways[1] = way


def _descend(node: int, ways: list[list[Way]]) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = ways[node][0][1]
    return path


def _rooted(
    links: NDArray[np.intp], gain: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Nodes of a forest from the roots to the leaves, the parent of each (-1 for a root) and the gain of that link."""
    n = int(links.max()) + 1
    numbers = np.arange(1, len(links) + 1)  # zero would be no link
    graph = csr_array((numbers, (links[:, 0], links[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    orders, parent = [], np.full(n, -1, dtype=np.intp)
    for root in np.unique(component, return_index=True)[1]:
        order, before = breadth_first_order(graph, root, directed=False)
        orders.append(order)
        parent[order[1:]] = before[order[1:]]
    symmetric = (graph + graph.T).tocsr()
    child = np.flatnonzero(parent >= 0)
    to_parent = np.zeros(n)
    to_parent[child] = gain[np.asarray(symmetric[child, parent[child]]).ravel() - 1]
    return np.concatenate(orders), parent, to_parent


def _is_among_nearest(tree: cKDTree, pixels: NDArray[np.intp], links: NDArray[np.intp], k: int) -> NDArray[np.bool_]:
    """Whether one end of each link is among the k nearest pixels of the other, itself included."""
    length = np.hypot(*(pixels[links[:, 0]] - pixels[links[:, 1]]).T)
    near = np.ones(len(links), dtype=bool)
    long = np.flatnonzero(length > 2)
    for end in (0, 1):
        within = tree.query_ball_point(pixels[links[long, end]], length[long] * (1 - 1e-9), return_length=True)
        near[long] = (within < k) if end == 0 else near[long] | (within < k)
    return near
