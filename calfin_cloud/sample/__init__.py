"""Glaciers to try things on: synthetic ones with an exactly known front, and a real scene, as COGs in a STAC catalogue.

Synthetic glaciers are random, and a picture is the same on every grid: texture and front are functions of map
coordinates. Training makes scenes of its own, without a catalogue.
"""

from calfin_cloud.sample.adverse import ADVERSE_CASES, paint_adverse
from calfin_cloud.sample.catalog import write_sample
from calfin_cloud.sample.painting import SyntheticScene, paint_scene
from calfin_cloud.sample.real import write_real_sample

__all__ = ["ADVERSE_CASES", "SyntheticScene", "paint_adverse", "paint_scene", "write_real_sample", "write_sample"]
