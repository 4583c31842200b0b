"""Paints glaciers: scenes with an exactly known front, alone (training) or as COGs in a STAC catalogue (demo, tests).

The glaciers are random, and a picture is the same on every grid: texture and front are functions of map coordinates.
"""

from calfin_cloud.sample.adverse import ADVERSE_CASES, paint_adverse
from calfin_cloud.sample.catalog import write_sample
from calfin_cloud.sample.painting import PaintedScene, paint_scene

__all__ = ["ADVERSE_CASES", "PaintedScene", "paint_adverse", "paint_scene", "write_sample"]
