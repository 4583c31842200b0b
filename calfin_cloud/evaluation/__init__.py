"""Methods against labelled images, and mapped fronts against hand-drawn ones: tables a scene and overall."""

from calfin_cloud.evaluation.adverse import adverse_samples
from calfin_cloud.evaluation.calibration import (
    check_calibration,
    check_left_out,
    fit_calibration,
    reliability,
    unseen_of,
)
from calfin_cloud.evaluation.cases import known_termini, make_cases
from calfin_cloud.evaluation.methods import (
    Method,
    describe_methods,
    edge_filter,
    folds_method,
    make_methods,
    network_method,
    unet_method,
)
from calfin_cloud.evaluation.references import compare_fronts, skill_of, why_unmatched
from calfin_cloud.evaluation.report import write_scores
from calfin_cloud.evaluation.scores import (
    PERSISTENCE,
    Scores,
    compare_methods,
    join_scores,
    score,
    score_persistence,
    summarise_scores,
)
from calfin_cloud.evaluation.sequences import score_sequences

__all__ = [
    "PERSISTENCE",
    "Method",
    "Scores",
    "adverse_samples",
    "check_calibration",
    "check_left_out",
    "compare_fronts",
    "compare_methods",
    "describe_methods",
    "edge_filter",
    "fit_calibration",
    "folds_method",
    "join_scores",
    "known_termini",
    "make_cases",
    "make_methods",
    "network_method",
    "reliability",
    "score",
    "score_persistence",
    "score_sequences",
    "skill_of",
    "summarise_scores",
    "unet_method",
    "unseen_of",
    "why_unmatched",
    "write_scores",
]
