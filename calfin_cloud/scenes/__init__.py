"""Catalogue, domain and period in; sorted, unique STAC items that touch the domain out. Also items of plain images."""

from calfin_cloud.public_catalogs import CATALOGS, PublicCatalog
from calfin_cloud.scenes.frozen import freeze_scenes
from calfin_cloud.scenes.granules import join_granules
from calfin_cloud.scenes.images import images_of, items_from_images
from calfin_cloud.scenes.periods import absolute_period, period_bounds
from calfin_cloud.scenes.reading import CatalogUnreachableError
from calfin_cloud.scenes.search import FindScenes, describe_catalog, search_scenes, stream_scenes

__all__ = [
    "CATALOGS",
    "CatalogUnreachableError",
    "FindScenes",
    "PublicCatalog",
    "absolute_period",
    "describe_catalog",
    "freeze_scenes",
    "images_of",
    "items_from_images",
    "join_granules",
    "period_bounds",
    "search_scenes",
    "stream_scenes",
]
