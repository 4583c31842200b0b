"""Address of a catalogue in; its features as plain JSON values out, one after the other, in the catalogue's order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import pystac
from pystac.serialization import identify_stac_object, migrate_to_latest
from pystac.utils import str_to_datetime
from pystac_client import Client
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from calfin_cloud.scenes.frozen import is_frozen, read_frozen
from calfin_cloud.scenes.periods import Period, rfc3339
from calfin_cloud.scenes.reading import Feature, KnownError, Reader, shown, telling, unless_odd
from calfin_cloud.sensors import CATALOG_FIELD, GRANULES_FIELD, in_utc, listed_assets

EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)
ABSOLUTE = re.compile(r"[A-Za-z][\w+.-]*:|<")  # how an address begins that needs no base; GDAL reads XML after <
PAGE_SIZE = 100  # items; what public APIs allow
MOST_PAGES = 100_000  # a catalogue that never ends is told after ten million items


class Wanted(NamedTuple):
    """What is searched for: an area in longitude and latitude, a period, and collections (none: all)."""

    area: BaseGeometry
    period: Period
    collections: list[str]


def read_features(address: str, wanted: Wanted) -> Iterator[Feature]:
    """Read the items of a catalogue: from an API those that are wanted, else all that there are.

    Items that are none are left out, each with a warning that names it and says why.

    Every item has an absolute self link or none, absolute asset addresses, `properties.datetime` in UTC, and the mark
    of its catalogue. Raises `ValueError` for what cannot be read, `CatalogUnreachableError` for what may be read later,
    at the page or file where that shows.
    """
    reader = Reader()
    known: set[str] = set()
    n_items, n_used, is_api, read = 0, 0, False, listed_assets()
    catalog, frozen = shown(address), is_frozen(address)
    with telling(address):
        if frozen:
            frozen_items = read_frozen(address, wanted.area.bounds, wanted.period)
            found: Iterator[tuple[Feature, str]] = ((feature, address) for feature in frozen_items)
        else:
            root, is_api = _read_root(address, reader)
            found = _api_items(root, address, reader, wanted) if is_api else _static_items(root, address, reader)
        for feature, base in found:
            n_items += 1
            settled = unless_odd(
                partial(_settled, base=base, catalog=catalog, read=read, is_new=is_api or frozen), feature
            )
            if settled is not None:
                n_used += 1
                known.add(settled["collection"] or "")
                yield settled
        if n_items and not n_used:
            raise TypeError(f"none of its {n_items} items can be used, see the warnings")
    if unknown := set(wanted.collections) - known if n_items and not is_api and not frozen else None:
        raise ValueError(_unknown_collections(address, unknown, known))


def read_title(address: str) -> str:
    """Ask a catalogue for its first document alone; say what it is. Raises as `read_features` does."""
    with telling(address):
        if is_frozen(address):
            next(read_frozen(address, EVERYWHERE, (None, None)), None)  # a file that is not there is told here
            return "frozen items"
        root, is_api = _read_root(address, Reader())
        kind = "STAC API" if is_api else root["type"]
        return f"{kind} {root.get('title') or root.get('id') or ''}".strip()


def _read_root(address: str, reader: Reader) -> tuple[dict[str, Any], bool]:
    """Read the first document of a catalogue, and say whether it is that of an API."""
    root = reader.read_json(address)
    if not isinstance(root, dict):
        raise TypeError(f"got a JSON {type(root).__name__}")
    return root, "conformsTo" in root


def absolute(address: str) -> str:
    """Address with a scheme, or absolute path."""
    address = address.removeprefix("file://")
    return address if "://" in address else str(Path(address).expanduser().resolve())


def _unknown_collections(address: str, unknown: set[str], known: set[str]) -> str:
    return f"{shown(address)} has no collection {sorted(unknown)}; it has {sorted(known)[:60]}"


# The kinds of catalogues: each item comes with the address that its relative ones are meant from


def _api_items(root: dict[str, Any], address: str, reader: Reader, wanted: Wanted) -> Iterator[tuple[Feature, str]]:
    client = Client.from_dict(root, href=address)
    client.set_self_href(address)
    client._stac_io = reader
    known = {collection.id for collection in client.get_collections()} if wanted.collections else set()
    if unknown := set(wanted.collections) - known:
        raise KnownError(_unknown_collections(address, unknown, known))
    # APIs refuse a range open at both ends.
    when = "/".join(rfc3339(t) for t in wanted.period) if any(wanted.period) else None
    area, collections = mapping(wanted.area), wanted.collections or None
    methods = {link.extra_fields.get("method") or "GET" for link in client.get_links("search")}
    method = "POST" if "POST" in methods or not methods else "GET"
    search = client.search(method=method, intersects=area, datetime=when, collections=collections, limit=PAGE_SIZE)
    parameters, asked = search.get_parameters(), set[int]()
    with ThreadPoolExecutor(1) as ahead:  # a page is read while the one before is looked through
        waiting = ahead.submit(reader.read_json, search.url, method=search.method, parameters=parameters)
        for _ in range(MOST_PAGES):
            page = waiting.result()
            # pystac-client ends at a page without items, though more may follow it, and takes an error for one.
            if not isinstance(page, dict) or not isinstance(page.get("features"), list):
                raise TypeError(f"got a page that lists no features: {str(page)[:100]}")
            following = next((link for link in _links(page) if link.get("rel") == "next"), None)
            if following is not None:
                following["href"] = urljoin(search.url, following["href"])
                if (question := hash(json.dumps(following, sort_keys=True))) in asked:
                    raise KnownError(f"{shown(address)} leads back to a page that it has given: report it to its owner")
                asked.add(question)
                waiting = ahead.submit(reader.read_json, pystac.Link.from_dict(following), parameters=parameters)
            for feature in page["features"]:
                yield feature, address
            if following is None:
                return
    raise KnownError(f"{shown(address)} lists more than {MOST_PAGES} pages: narrow the period or the collections")


def _static_items(root: dict[str, Any], address: str, reader: Reader) -> Iterator[tuple[Feature, str]]:
    if root.get("type") == "FeatureCollection":
        for feature in root["features"]:
            yield feature, address
    elif root.get("type") == "Feature":
        yield _with_self_link(root, address), address
    else:
        for href, feature in _linked_items(root, address, reader):
            yield _with_self_link(feature, href) if isinstance(feature, dict) else feature, href


def _linked_items(root: dict[str, Any], address: str, reader: Reader) -> Iterator[tuple[str, Feature]]:
    """Follow the links of a static catalogue down to its items, catalogue by catalogue."""
    waiting, seen = [(address, root)], {address}
    while waiting:
        base, catalog = waiting.pop()
        if identify_stac_object(catalog).object_type not in ("Catalog", "Collection"):
            raise TypeError(f"got neither catalogue nor item at {shown(base)}")
        for link in catalog["links"]:
            if link["rel"] not in ("child", "item"):
                continue
            href = _joined(base, link["href"])
            if _place(href) != _place(address):
                raise ValueError(
                    f"the catalogue links to {shown(href)}, which is not where it is itself: open that one instead"
                )
            if link["rel"] == "item":
                yield href, reader.read_json(href)
            elif href not in seen:
                seen.add(href)
                waiting.append((href, reader.read_json(href)))


def _self_href(feature: Feature) -> str | None:
    own = [str(link.get("href")) for link in _links(feature) if link.get("rel") == "self"]
    return next((href for href in own if "://" in href), None)


def _links(feature: Feature) -> list[dict[str, Any]]:
    links = feature.get("links")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


def _with_self_link(feature: Feature, href: str) -> Feature:
    others = [link for link in _links(feature) if link.get("rel") != "self"]
    return feature | {"links": [{"rel": "self", "href": href, "type": "application/json"}, *others]}


def _joined(base: str, href: str) -> str:
    """Absolute form of an address in a document at `base`."""
    if ABSOLUTE.match(href):
        return href.removeprefix("file://")
    if "://" not in base:
        return href if href.startswith("/") else os.path.normpath(Path(base).parent / href)
    scheme, _, place = base.partition("://")  # of which urljoin knows those of the web, and not those of object stores
    return f"{scheme}:{urljoin(f'https://{place}', href).removeprefix('https:')}"


def _place(href: str) -> tuple[str, str]:
    parts = urlsplit(href)
    return parts.scheme, parts.netloc


def _settled(feature: Feature, *, base: str, catalog: str, read: Set[str], is_new: bool) -> Feature:
    """Give an item absolute asset addresses, a datetime, and the mark of its catalogue, whatever it says itself.

    Of its assets those in `read` stay, a fifth of what a Landsat item weighs; all of one that has none of them.
    """
    if not isinstance(feature, dict) or not isinstance(feature.get("id"), str) or not feature["id"]:
        raise TypeError("it has no id")
    feature = feature if is_new else migrate_to_latest(feature, identify_stac_object(feature))
    if not pystac.Item.matches_object_type(feature):
        raise TypeError("it is not of the type of a STAC item")
    feature["collection"] = None if feature.get("collection") is None else str(feature["collection"])
    base = _self_href(feature) or base
    assets = feature.get("assets", {})
    feature["assets"] = {key: asset for key, asset in assets.items() if key in read} or assets
    for asset in feature["assets"].values():
        if not isinstance(asset["href"], str):
            raise TypeError(f"the address of an asset is {str(asset['href'])[:100]}")
        if not ABSOLUTE.match(asset["href"]):
            asset["href"] = _joined(base, asset["href"])
    feature["links"] = [link for link in _links(feature) if link.get("rel") == "self"]  # nothing reads others
    feature["properties"]["datetime"] = _datetime(feature)
    feature[CATALOG_FIELD] = catalog
    feature.pop(GRANULES_FIELD, None)
    return feature


def _datetime(feature: Feature) -> str:
    """Time of an item in UTC; the start of its interval where it has only that."""
    properties = feature["properties"]
    text = properties.get("datetime") or properties.get("start_datetime")
    if not text:
        raise ValueError("it has no datetime")
    try:
        return rfc3339(in_utc(_moment(text)))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"its datetime is {str(text)[:100]!r}: {error}") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # of the many ways to write a time pystac knows more, in forty times the time
        return str_to_datetime(text)
