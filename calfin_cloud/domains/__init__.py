"""A domain is one terminus on a map grid; domain files, and domains around known termini."""

from calfin_cloud.domains.around import ID_COLUMNS, domains_from_termini
from calfin_cloud.domains.domain import (
    FJORD_SOURCES,
    Domain,
    part_inside,
    svg_path,
    with_fjord_mask,
    with_fjord_polygons,
)
from calfin_cloud.domains.files import domains_json, read_domains, write_domains
from calfin_cloud.domains.grids import (
    DEFAULT_RESOLUTION_M,
    azimuth_deg,
    best_crs,
    box_grid,
    cut_at_antimeridian,
    length_scale,
    shifted,
    unwrapped,
)

__all__ = [
    "DEFAULT_RESOLUTION_M",
    "FJORD_SOURCES",
    "ID_COLUMNS",
    "Domain",
    "azimuth_deg",
    "best_crs",
    "box_grid",
    "cut_at_antimeridian",
    "domains_from_termini",
    "domains_json",
    "length_scale",
    "part_inside",
    "read_domains",
    "shifted",
    "svg_path",
    "unwrapped",
    "with_fjord_mask",
    "with_fjord_polygons",
    "write_domains",
]
