"""Methods against labelled images, and mapped fronts against hand-drawn ones: tables a scene and overall."""

from calfin_cloud.evaluation.methods import (
    Method,
    describe_methods,
    edge_filter,
    make_methods,
    network_method,
    unet_method,
)
from calfin_cloud.evaluation.references import compare_fronts, read_reference
from calfin_cloud.evaluation.report import write_scores
from calfin_cloud.evaluation.scores import Scores, compare_methods, join_scores, score, summarise_scores

__all__ = [
    "Method",
    "Scores",
    "compare_fronts",
    "compare_methods",
    "describe_methods",
    "edge_filter",
    "join_scores",
    "make_methods",
    "network_method",
    "read_reference",
    "score",
    "summarise_scores",
    "unet_method",
    "write_scores",
]
