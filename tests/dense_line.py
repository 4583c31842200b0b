"""The line extraction of calfin-method 6.2 written down step by step, all n x n distances, as an oracle for small n."""

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from skimage.morphology import skeletonize

THRESHOLD, ZERO, POWER = 0.33, 5.0, 1.5


def dense_line(edge):
    """(y, x) probability -> (n, 2) row, column of the line's vertices in order."""
    pixels = np.argwhere(skeletonize(edge > THRESHOLD))
    if len(pixels) < 4:
        return np.empty((0, 2), dtype=int)
    line = pixels[dense_path(dense_tree(pixels))]
    return line if np.hypot(*line[0]) <= np.hypot(*line[-1]) else line[::-1]


def dense_tree(pixels):
    """Neighbours and lengths of the spanning tree of the nearest quarter of all pixels, by the logarithm of lengths."""
    n = len(pixels)
    distance = np.sqrt(((pixels[:, None].astype(float) - pixels[None]) ** 2).sum(axis=-1))
    k = max(3, int(0.25 * n))
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    weight = np.zeros_like(distance)
    rows = np.repeat(np.arange(n), k)
    weight[rows, near.ravel()] = np.log(distance[rows, near.ravel()] + 1)
    tree = minimum_spanning_tree(weight).tocoo()
    neighbours = [[] for _ in range(n)]
    for a, b, w in zip(tree.row, tree.col, tree.data, strict=True):
        length = np.exp(w) - 1
        neighbours[a].append((int(b), length))
        neighbours[b].append((int(a), length))
    return neighbours


def dense_path(neighbours):
    """Path of the greatest sum of z^p - d^p: from any node, over every directed link, until a leaf."""
    worth, way = {}, {}
    for start in range(len(neighbours)):
        for first, length in neighbours[start]:
            stack = [(start, first, length)]
            while stack:
                a, b, d = stack[-1]
                further = [(b, c, e) for c, e in neighbours[b] if c != a]
                unknown = [link for link in further if link[:2] not in worth]
                if unknown:
                    stack += unknown
                    continue
                stack.pop()
                best = max(further, key=lambda link: worth[link[:2]], default=None)
                worth[a, b] = ZERO**POWER - d**POWER + (worth[best[:2]] if best else 0.0)
                way[a, b] = best[:2] if best else None
    link = max(worth, key=worth.__getitem__)
    path = [link[0]]
    while link:
        path.append(link[1])
        link = way[link]
    return np.array(path)
