"""Public STAC APIs by name; imports nothing of the package, so that help texts can name them at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicCatalog:
    """A public STAC API by name: its address, and the collections searched unless the user names some."""

    url: str
    collections: tuple[str, ...]


CATALOGS = {
    "copernicus": PublicCatalog("https://stac.dataspace.copernicus.eu/v1", ("sentinel-2-l2a", "sentinel-1-grd")),
    "earth-search": PublicCatalog(
        "https://earth-search.aws.element84.com/v1", ("landsat-c2-l2", "sentinel-2-l2a", "sentinel-1-grd")
    ),
    "planetary-computer": PublicCatalog(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        ("landsat-c2-l1", "landsat-c2-l2", "sentinel-2-l2a", "sentinel-1-rtc"),
    ),
    # Level 1 has every scene, of every Landsat; with level 2 beside it most would be found twice.
    "usgs": PublicCatalog("https://landsatlook.usgs.gov/stac-server", ("landsat-c2l1",)),
}
NAMES = ", ".join(CATALOGS)
