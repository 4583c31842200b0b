"""Fronts and polygons in formats of the community: tables of CALFIN and TermPicks, ISSM, ice-mask cubes, STAC."""

from calfin_cloud.exports.cubes import level_set_at, level_set_series, monthly_ice
from calfin_cloud.exports.issm import exp_text
from calfin_cloud.exports.meshes import read_mesh
from calfin_cloud.exports.places import CRS, known_name, region_at
from calfin_cloud.exports.stac import collection_of
from calfin_cloud.exports.tables import calfin_lines, calfin_polygons, termpicks_lines, write_by_glacier

__all__ = [
    "CRS",
    "calfin_lines",
    "calfin_polygons",
    "collection_of",
    "exp_text",
    "known_name",
    "level_set_at",
    "level_set_series",
    "monthly_ice",
    "read_mesh",
    "region_at",
    "termpicks_lines",
    "write_by_glacier",
]
