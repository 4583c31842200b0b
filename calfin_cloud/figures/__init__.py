"""Scenes, fronts and the table of a run go in; pictures (PNG) and one self-contained HTML report come out."""

from calfin_cloud.figures.pictures import (
    MAX_PICTURES,
    contact_sheet,
    scene_figure,
    scene_png,
)
from calfin_cloud.figures.report import report_html

__all__ = ["MAX_PICTURES", "contact_sheet", "report_html", "scene_figure", "scene_png"]
