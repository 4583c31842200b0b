"""Pairs of fronts -> means with intervals that know which pairs share a line or a glacier."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

N_DRAWS = 2000


def clustered_mean(values: pd.Series, glaciers: pd.Series, lines: pd.Series, *, seed: int = 0) -> tuple[float, ...]:
    """Mean of pairs and its 95 % interval, drawing glaciers with replacement, and in each its groups of lines.

    Parameters
    ----------
    values, glaciers, lines
        Of each pair: what is averaged, its glacier, and its group of `line_groups`. NaN values are left out.

    Returns
    -------
    tuple
        Mean, low, high; the ends are NaN where all pairs hang together.
    """
    known = values.notna()
    groups = values[known].groupby([glaciers[known].astype(str), lines[known]]).agg(["sum", "size"])
    if groups.empty:
        return (float("nan"),) * 3
    mean = float(values[known].mean())
    if len(groups) < 2:
        return mean, float("nan"), float("nan")
    weights = _draws(groups.index.get_level_values(0), np.random.default_rng(seed))
    counts = weights @ groups["size"].to_numpy()
    drawn = weights @ groups["sum"].to_numpy() / np.maximum(counts, 1)
    low, high = np.percentile(drawn[counts > 0], [2.5, 97.5])
    return mean, float(low), float(high)


def line_groups(pairs: pd.DataFrame) -> pd.Series:
    """Give each pair (n,) the number of its group: those that hang together, since they share fronts of either side."""
    graph = nx.Graph(zip(pairs["key_a"], pairs["key_b"], strict=True))
    number = {key: place for place, keys in enumerate(nx.connected_components(graph)) for key in keys}
    return pairs["key_a"].map(number)


def _draws(glaciers: pd.Index[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each group (draws, groups) is drawn: first glaciers, then as many groups in each as it has."""
    names = glaciers.unique()
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_DRAWS)
    weights = np.zeros((N_DRAWS, len(glaciers)))
    for name, drawn in zip(names, times.T, strict=True):
        members = np.flatnonzero(glaciers == name)
        weights[:, members] = rng.multinomial(drawn * len(members), np.full(len(members), 1 / len(members)))
    return weights
