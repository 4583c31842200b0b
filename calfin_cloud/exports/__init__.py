"""Fronts and polygons in formats of the community: tables of CALFIN and TermPicks, ISSM, ice-mask cubes, STAC."""

from calfin_cloud.exports.composites import cells_of, create_composite, tiles_of, write_base, write_tile
from calfin_cloud.exports.cubes import consolidate, level_set_series, monthly_ice
from calfin_cloud.exports.issm import exp_text
from calfin_cloud.exports.levels import Levels, levels_of, merge_levels
from calfin_cloud.exports.meshes import read_mesh
from calfin_cloud.exports.places import CRS, known_name, region_at
from calfin_cloud.exports.stac import json_value, write_collection
from calfin_cloud.exports.tables import CALFIN_NAMES, calfin_lines, calfin_polygons, termpicks_lines, write_by_glacier

__all__ = [
    "CALFIN_NAMES",
    "CRS",
    "Levels",
    "calfin_lines",
    "calfin_polygons",
    "cells_of",
    "consolidate",
    "create_composite",
    "exp_text",
    "json_value",
    "known_name",
    "level_set_series",
    "levels_of",
    "merge_levels",
    "monthly_ice",
    "read_mesh",
    "region_at",
    "termpicks_lines",
    "tiles_of",
    "write_base",
    "write_by_glacier",
    "write_collection",
    "write_tile",
]
