"""Probabilities of one scene in; isolated, traced calving fronts out (calfin-method 6). Pure functions of arrays."""

from calfin_cloud.fronts.isolation import draw_line, isolate_fronts
from calfin_cloud.fronts.lines import extract_line
from calfin_cloud.fronts.settings import BAUMHOER, CALFIN, TraceSettings
from calfin_cloud.fronts.trace import Front, Rejected, Trace, candidate_windows, georeference, trace_fronts

__all__ = [
    "BAUMHOER",
    "CALFIN",
    "Front",
    "Rejected",
    "Trace",
    "TraceSettings",
    "candidate_windows",
    "draw_line",
    "extract_line",
    "georeference",
    "isolate_fronts",
    "trace_fronts",
]
