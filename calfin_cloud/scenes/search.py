"""Catalogue, domain and period in; sorted, unique items that touch the domain out, at once or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from operator import length_hint
from pathlib import Path

import pystac

from calfin_cloud.domains import Domain
from calfin_cloud.public_catalogs import CATALOGS
from calfin_cloud.scenes.catalogs import Wanted, absolute, read_features, read_title
from calfin_cloud.scenes.footprints import footprint_touches
from calfin_cloud.scenes.listing import Counted, sort_unique
from calfin_cloud.scenes.periods import period_bounds
from calfin_cloud.scenes.reading import Feature, shown, unless_odd
from calfin_cloud.schema import FIRST_YEAR, LAST_YEAR
from calfin_cloud.sensors import item_of

FindScenes = Callable[[Domain], Iterable[pystac.Item]]
"""Items of a domain, sorted by time and id, each id once; taken one by one, so that they need not fit into memory."""


def search_scenes(
    catalog: str | Path,
    domain: Domain,
    period: str,
    *,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
) -> list[pystac.Item]:
    """Find the items of a catalogue that touch the domain within the period, sorted by time and id, each id once.

    Asset addresses come out absolute and unsigned. An item without geometry and bounding box is kept, since it may
    touch the domain; an item without a cloud cover passes `max_cloud`; one dated in the future is kept. An item
    that cannot be read is left out with a warning that names it and says why. Of the items
    with one id, as where a catalogue changes while its pages are read, the one `updated` last stays, else the earliest.

    Parameters
    ----------
    catalog
        A name of `CATALOGS`, the URL of a STAC API, or the URL or file of a static catalogue, of an item collection
        (GeoJSON FeatureCollection, or stac-geoparquet as `freeze_scenes` writes it) or of one item.
    domain
        Scenes that touch its rectangle are found.
    period
        Years, months, days or instants, both ends included, either end open: `2019`, `2019-06/2019-09`,
        `2019-06/..`.
    collections
        Ids of the collections to search; by default those of the named catalogue, or all that there are.
    max_cloud
        Highest `eo:cloud_cover` of a whole scene, in percent.

    Returns
    -------
    list
        Items, sorted by time and id.

    Raises
    ------
    CatalogUnreachableError
        When the catalogue's server cannot be reached, or stays busy: the same call may succeed later.
    ValueError
        When the period or the catalogue cannot be read, the catalogue has none of a collection, or `max_cloud` is no
        percentage.

    Examples
    --------
    >>> (domain,) = cc.read_domains("real/domains.geojson")
    >>> [item.id for item in cc.search_scenes("real/catalog.json", domain, "2021-06/2021-09")]
    ['harald-moltke-brae_20210927']
    """
    return list(stream_scenes(catalog, domain, period, collections=collections, max_cloud=max_cloud))


def stream_scenes(
    catalog: str | Path,
    domain: Domain,
    period: str,
    *,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
) -> Iterator[pystac.Item]:
    """Find what `search_scenes` finds, but hand it out item by item: memory does not grow with the listing.

    The catalogue is read to its end before this returns, so a page that fails ends the search and not a run in its
    middle. Until then, and to be sorted, the items lie in a temporary file.

    Parameters
    ----------
    catalog
        A name of `CATALOGS`, the URL of a STAC API, or the URL or file of a static catalogue, of an item collection
        (GeoJSON FeatureCollection) or of one item.
    domain
        Scenes that touch its rectangle are found.
    period
        Years, months, days or instants, both ends included, either end open: `2019`, `2019-06/2019-09`,
        `2019-06/..`.
    collections
        Ids of the collections to search; by default those of the named catalogue, or all that there are.
    max_cloud
        Highest `eo:cloud_cover` of a whole scene, in percent.

    Returns
    -------
    Iterator
        Items, sorted by time and id; `operator.length_hint` tells how many are left.

    Raises
    ------
    CatalogUnreachableError
        When the catalogue's server cannot be reached, or stays busy: the same call may succeed later.
    ValueError
        When the period or the catalogue cannot be read, the catalogue has none of a collection, or `max_cloud` is no
        percentage.

    Examples
    --------
    >>> (domain,) = cc.read_domains("real/domains.geojson")
    >>> [item.id for item in cc.stream_scenes("real/catalog.json", domain, "2021-06/2021-09")]
    ['harald-moltke-brae_20210927']
    """
    _check_call(domain, max_cloud)
    named = CATALOGS.get(str(catalog))
    address = absolute(named.url if named else str(catalog))
    if isinstance(collections, str):
        collections = [collections]
    wanted = Wanted(
        domain.area_lonlat, period_bounds(period), list(collections or (named.collections if named else ()))
    )
    is_wanted = partial(_is_wanted, wanted=wanted, max_cloud=max_cloud)
    kept = (feature for feature in read_features(address, wanted) if unless_odd(is_wanted, feature))
    listing = sort_unique(kept, name=shown(address))
    items = (unless_odd(item_of, feature) for feature in listing)
    return Counted((item for item in items if item is not None), length_hint(listing))


def _check_call(domain: Domain, max_cloud: float | None) -> None:
    if not isinstance(domain, Domain):
        raise TypeError(f"scenes are searched for one Domain, got {type(domain).__name__}: call once a domain")
    if max_cloud is not None and not (isinstance(max_cloud, int | float) and 0 <= max_cloud <= 100):
        raise ValueError(f"max_cloud is in percent, a number from 0 to 100, got {max_cloud!r}")


def describe_catalog(catalog: str | Path) -> str:
    """Ask a catalogue, named as for `search_scenes`, for its first document, and say what it is.

    Raises
    ------
    CatalogUnreachableError, ValueError
        As `search_scenes` does.
    """
    named = CATALOGS.get(str(catalog))
    return read_title(absolute(named.url if named else str(catalog)))


def _is_wanted(feature: Feature, wanted: Wanted, max_cloud: float | None) -> bool:
    start, end = wanted.period
    moment = datetime.fromisoformat(feature["properties"]["datetime"])
    cloud = feature["properties"].get("eo:cloud_cover")
    is_wanted = (
        (not wanted.collections or feature.get("collection") in wanted.collections)
        and (start is None or moment >= start)
        and (end is None or moment <= end)
        and (max_cloud is None or not isinstance(cloud, int | float) or cloud <= max_cloud)
        and footprint_touches(feature["id"], feature.get("geometry"), feature.get("bbox"), wanted.area)
    )
    if is_wanted and not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"its date {moment.date()} is not of the years {FIRST_YEAR} to {LAST_YEAR}")
    return is_wanted
