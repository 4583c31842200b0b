"""Labelled samples go in, trained weights come out, with settings and learning curves; a stopped run resumes."""

from calfin_cloud.training.adapting import adapt, check_labels, split_in_time
from calfin_cloud.training.averaging import average_weights
from calfin_cloud.training.batches import draw_sample, make_batch, prefetched_batches
from calfin_cloud.training.calfin_augmentation import Frame, release_patch, squeeze
from calfin_cloud.training.distilling import distil
from calfin_cloud.training.fitting import copy_weights, fit, synthetic_samples, validate
from calfin_cloud.training.folds import fit_folds, fold_path
from calfin_cloud.training.losses import masks_loss, soft_jaccard
from calfin_cloud.training.patches import (
    FAR_PX,
    FRAME_SIZE,
    FRONT_HALF_WIDTH_PX,
    Prepared,
    coarsen,
    cut_patch,
    melange,
    prepare,
    random_bend,
    random_patch,
    random_window,
    sea_state,
    shade,
    slc_off_gaps,
    vary_grey,
    whole_scene,
)
from calfin_cloud.training.quantising import quantise
from calfin_cloud.training.settings import CALFIN, FRONT_WEIGHT, RECIPES, TrainingSettings

__all__ = [
    "CALFIN",
    "FAR_PX",
    "FRAME_SIZE",
    "FRONT_HALF_WIDTH_PX",
    "FRONT_WEIGHT",
    "RECIPES",
    "Frame",
    "Prepared",
    "TrainingSettings",
    "adapt",
    "average_weights",
    "check_labels",
    "coarsen",
    "copy_weights",
    "cut_patch",
    "distil",
    "draw_sample",
    "fit",
    "fit_folds",
    "fold_path",
    "make_batch",
    "masks_loss",
    "melange",
    "prefetched_batches",
    "prepare",
    "quantise",
    "random_bend",
    "random_patch",
    "random_window",
    "release_patch",
    "sea_state",
    "shade",
    "slc_off_gaps",
    "soft_jaccard",
    "split_in_time",
    "squeeze",
    "synthetic_samples",
    "validate",
    "vary_grey",
    "whole_scene",
]
