"""STAC items in; a lazy stack of scenes (time, band, y, x) on the domain's grid out, read on the worker."""

from calfin_cloud.imagery.addresses import check_address
from calfin_cloud.imagery.fractions import STRIPE_WIDTH_M, scene_fractions, wide_parts
from calfin_cloud.imagery.further import read_further
from calfin_cloud.imagery.images import read_image
from calfin_cloud.imagery.stack import READ_AT_ONCE, read_each, stack_pixels, stack_scenes

__all__ = [
    "READ_AT_ONCE",
    "STRIPE_WIDTH_M",
    "check_address",
    "read_each",
    "read_further",
    "read_image",
    "scene_fractions",
    "stack_pixels",
    "stack_scenes",
    "wide_parts",
]
