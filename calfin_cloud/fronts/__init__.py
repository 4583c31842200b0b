"""Probabilities of one scene in; isolated, traced calving fronts out (calfin-method 6). Pure functions of arrays."""

from calfin_cloud.fronts.fjords import FEWEST_DATES, fjord_from_scenes
from calfin_cloud.fronts.found import Front, Rejected, Trace
from calfin_cloud.fronts.guided import Guide
from calfin_cloud.fronts.isolation import draw_line, isolate_fronts
from calfin_cloud.fronts.lines import extract_line
from calfin_cloud.fronts.placed import NOWHERE, Place, place_of, trace_placed
from calfin_cloud.fronts.reconcile import Chosen, Dated, reconcile_scenes
from calfin_cloud.fronts.sequence import Candidate, SequenceSettings, best_sequences
from calfin_cloud.fronts.settings import (
    BAUMHOER,
    CALFIN,
    DEFAULT,
    MOHAJERANI,
    VARIANTS,
    ZHANG,
    GuideSettings,
    MapWeights,
    TraceSettings,
)
from calfin_cloud.fronts.trace import candidate_boxes, trace_fronts
from calfin_cloud.fronts.uncertainty import (
    Calibration,
    Uncertainty,
    calibration_beside,
    read_calibration,
    uncertainty_of,
    write_calibration,
)
from calfin_cloud.fronts.vertices import georeference, pixels_of
from calfin_cloud.fronts.windows import Window, whole_box, window_around

__all__ = [
    "BAUMHOER",
    "CALFIN",
    "DEFAULT",
    "FEWEST_DATES",
    "MOHAJERANI",
    "NOWHERE",
    "VARIANTS",
    "ZHANG",
    "Calibration",
    "Candidate",
    "Chosen",
    "Dated",
    "Front",
    "Guide",
    "GuideSettings",
    "MapWeights",
    "Place",
    "Rejected",
    "SequenceSettings",
    "Trace",
    "TraceSettings",
    "Uncertainty",
    "Window",
    "best_sequences",
    "calibration_beside",
    "candidate_boxes",
    "draw_line",
    "extract_line",
    "fjord_from_scenes",
    "georeference",
    "isolate_fronts",
    "pixels_of",
    "place_of",
    "read_calibration",
    "reconcile_scenes",
    "trace_fronts",
    "trace_placed",
    "uncertainty_of",
    "whole_box",
    "window_around",
    "write_calibration",
]
