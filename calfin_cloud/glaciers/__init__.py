"""A glacier by its name, a point or a box becomes a domain: an index of glaciers, their termini, and checks."""

from calfin_cloud.glaciers.doubts import check_order, check_place
from calfin_cloud.glaciers.index import Glacier, find_glacier, known_termini, read_glaciers, read_termini
from calfin_cloud.glaciers.making import domain_from_box, domain_from_glacier, domain_from_point

__all__ = [
    "Glacier",
    "check_order",
    "check_place",
    "domain_from_box",
    "domain_from_glacier",
    "domain_from_point",
    "find_glacier",
    "known_termini",
    "read_glaciers",
    "read_termini",
]
