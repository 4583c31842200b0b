"""The verb that makes domains: of glaciers by name, points, boxes, or a file of termini."""

from __future__ import annotations

import argparse
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import how_many, note, records, tell
from calfin_cloud.cli.reading import read_polygons

NEGATIVE_PLACE = re.compile(r"^-\d[\d.,\-]*$")
MOST_NAMED = 8  # domains in the line that says what was made
MOST_LOOKS = 8  # scenes of a catalogue that are tried for the picture of a preview
MOST_MISSING = 0.1
CLEAR_PERCENT = 20.0
BOUNDARIES = {
    "": "no fjord boundary",
    "fjord_boundary": "drawn fjord boundary",
    "dates": "fjord boundary from scenes",
    "ice_mask": "fjord boundary from the ice mask",
}
"""Where the fjord boundary of a domain is from, in words."""


def domains(options: argparse.Namespace) -> int:
    """Make domains: by the name of a glacier, a point, a box, or the termini of a file; say what may be wrong."""
    from calfin_cloud.domains import write_domains
    from calfin_cloud.glaciers import check_order, check_place, read_glaciers

    if options.list:
        named = read_glaciers()[["id", "name", "other_names", "lon", "lat"]]
        tell(options, records(named), named.replace({"name": ""}, "-").to_string(index=False))
        return 0
    if options.out is None:
        raise ValueError("--out is needed: the domain file to write, e.g. --out domains.geojson")
    if options.preview and options.preview.resolve() == options.out.resolve():
        raise ValueError(f"--out and --preview are both {options.out}: give the page a name of its own")
    made = _make(options)
    write_domains(made, options.out)
    check = check_place if options.from_termini is None else check_order  # who has drawn termini knows the sea there
    doubts = {domain.name: check(domain) for domain in made}
    for name, told in doubts.items():
        for doubt in told:
            note(f"{name}: {doubt}")
    is_only = len(made) == 1
    pages = [_write_preview(options, d, doubts.get(d.name, []), is_only=is_only) for d in made if options.preview]
    result = {"domains": [d.name for d in made], "out": options.out, "doubts": doubts, "previews": pages}
    names = ", ".join(d.name for d in made[:MOST_NAMED]) + (", ..." if len(made) > MOST_NAMED else "")
    said = f"{how_many(len(made), 'domain')} ({names}): {options.out}"
    tell(options, result, said, *(f"preview: {page}" for page in pages))
    return 0


def _make(options: argparse.Namespace) -> list[Any]:
    """Make the domains that the call asks for."""
    from calfin_cloud.domains import domains_from_termini
    from calfin_cloud.glaciers import domain_from_box, domain_from_glacier, domain_from_point
    from calfin_cloud.vectors import crs_of

    if not options.resolution > 0:
        raise ValueError(f"--resolution takes metres above 0, got {options.resolution:g}: 30 is the default")
    size = {"resolution_m": options.resolution, "crs": options.crs}
    if options.crs:
        crs_of(options.crs)
    if options.glacier:
        return [domain_from_glacier(name, margin=options.margin, **size) for name in options.glacier]
    if options.point:
        lon, lat = _numbers(options.point, 2, "--point LON,LAT")
        return [domain_from_point(lon, lat, size_km=options.size_km, name=options.name, **size)]
    if options.bbox:
        bounds = _numbers(options.bbox, 4, "--bbox WEST,SOUTH,EAST,NORTH")
        return [domain_from_box(bounds, name=options.name, **size)]
    termini = _fronts(options.from_termini)
    return domains_from_termini(termini, id_column=options.id_column, margin=options.margin, **size)


def _write_preview(
    options: argparse.Namespace,
    domain: Any,  # noqa: ANN401 - imported lazily
    doubts: Sequence[str],
    *,
    is_only: bool,
) -> Path:
    """Write the page of a domain, with its newest clear scene where a catalogue is given; return its path."""
    from calfin_cloud.figures.preview import preview_html
    from calfin_cloud.glaciers import known_termini
    from calfin_cloud.land import read_land
    from calfin_cloud.whole_files import write_whole_file

    left, bottom, right, top = domain.polygon.buffer(0.5 * domain.grid.boundingbox.span_x).bounds
    picture, words = _newest_clear(options, domain) if options.catalog else (None, "")
    page = preview_html(
        domain,
        known_termini(domain),
        read_land((left, bottom, right, top), domain.crs),
        doubts,
        picture=picture,
        picture_words=words,
    )
    path: Path = options.preview if is_only else options.preview.with_stem(f"{options.preview.stem}-{domain.name}")
    write_whole_file(path, page)
    return path


def _newest_clear(options: argparse.Namespace, domain: Any) -> tuple[bytes | None, str]:  # noqa: ANN401 - lazy
    """Picture (PNG) of the newest scene of a catalogue that covers the domain and is not cloudy, and its words."""
    import numpy as np
    from PIL import Image

    from calfin_cloud.imagery import stack_scenes
    from calfin_cloud.scenes import join_granules, search_scenes
    from calfin_cloud.schema import SceneError

    if options.period is None:
        raise ValueError("--period is needed with --catalog, e.g. --period 2019-06/2019-09")
    found = search_scenes(options.catalog, domain, options.period, max_cloud=CLEAR_PERCENT)
    items = list(join_granules(found, domain))
    for item in sorted(items, key=lambda i: str(i.datetime), reverse=True)[:MOST_LOOKS]:
        try:
            signal, cloud = np.asarray(stack_scenes([item], domain)[0])
        except SceneError as error:
            note(f"{item.id}: {error}", level=logging.WARNING)
            continue
        if np.isnan(signal).mean() < MOST_MISSING and (cloud > 0).mean() * 100 < CLEAR_PERCENT:
            low, high = np.nanpercentile(signal, (1, 99))
            grey = np.nan_to_num(np.clip((signal - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
            out = io.BytesIO()
            Image.fromarray(grey).save(out, "PNG")
            return out.getvalue(), f"{item.datetime:%Y-%m-%d}, {item.properties.get('platform', '')}: {item.id}"
    note(f"{domain.name}: no clear scene among {len(items)} of the catalogue")
    return None, ""


def _numbers(text: str, count: int, form: str) -> list[float]:
    """Read numbers with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"{form} takes {count} numbers with commas between, got {text!r}")
    return values


def fjords(options: argparse.Namespace) -> int:
    """Add to domains what is known of their place: fjord boundaries, maps of ice and ocean, known termini."""
    from calfin_cloud.domains import read_domains, with_fjord_polygons, write_domains
    from calfin_cloud.results import derive_fjords
    from calfin_cloud.surroundings import with_maps, with_termini
    from calfin_cloud.vectors import read_vectors

    if not any((options.polygons, options.store, options.ice_mask, options.ocean, options.termini)):
        raise ValueError("nothing is given to add: name --polygons, --store, --ice-mask, --ocean or --termini")
    found = read_domains(options.domains)
    if options.polygons:
        found = _told(
            found, with_fjord_polygons(found, read_polygons(options.polygons, "file of fjords")), options.polygons
        )
    ice = read_polygons(options.ice_mask, "map of ice")
    ocean = read_vectors(options.ocean, "map of ocean") if options.ocean else None
    if ice is not None:
        found = _told(found, with_maps(found, ice=ice), options.ice_mask)
    if ocean is not None:
        found = _told(found, with_maps(found, ocean=ocean), options.ocean)
    if options.termini:
        added = with_termini(found, _fronts(options.termini))
        found = _told(found, added, options.termini, "its glaciers have other ids, ")
    if options.store:
        found = derive_fjords(options.store, found, ice_mask=ice)
    write_domains(found, options.out)
    lines, rows = [], []
    for domain in found:
        maps = [name for name in ("ice", "ocean") if getattr(domain, name) is not None]
        also = [f"map of {name}" for name in maps]
        also += [how_many(len(domain.termini), "known terminus", "known termini")] if domain.termini else []
        lines.append(f"{domain.name}: {', '.join([BOUNDARIES[domain.fjord_source], *also])}")
        row = {"domain": domain.name, "fjord_source": domain.fjord_source, "maps": maps}
        rows.append(row | {"termini": len(domain.termini)})
    tell(options, rows, *lines)
    return 0


def _told(before: Sequence[Any], after: list[Any], file: str, why: str = "") -> list[Any]:
    """Return domains to which a file was added; say so where it has changed none."""
    if before == after:
        note(f"{file} adds nothing to a domain: nothing of it lies in their boxes, {why}or they have it already")
    return after


def _fronts(path: str) -> Any:  # noqa: ANN401 - geopandas waits until it is needed
    """Read the lines of a vector file, or the fronts of a store as people left them."""
    from calfin_cloud.results import usable_fronts
    from calfin_cloud.storage import is_store
    from calfin_cloud.vectors import read_vectors

    return usable_fronts(path, flagged=False) if is_store(path) else read_vectors(path, "file of termini", of="lines")


def add_domains(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin domains`."""
    # argparse takes -49.7,69.2 for a flag: only whole negative numbers are values to it.
    parser._negative_number_matcher = NEGATIVE_PLACE
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--glacier", nargs="+", action="extend", metavar="NAME", help="glaciers by name or number, see --list"
    )
    what.add_argument("--point", metavar="LON,LAT", help="a square around a point, in degrees")
    what.add_argument("--bbox", metavar="W,S,E,N", help="a box in degrees")
    what.add_argument("--from-termini", metavar="VECTOR_FILE", help="one domain per glacier id, around these lines")
    what.add_argument("--list", action="store_true", help="print the index of glaciers")
    parser.add_argument("--out", type=flags.geojson, metavar="FILE", help="domain file to write (GeoJSON)")
    parser.add_argument(
        "--name", default="", help="name of the domain of --point or --bbox (default: made of its place)"
    )
    parser.add_argument("--size-km", type=float, default=20.0, metavar="KM", help="side for --point (default 20)")
    parser.add_argument("--id-column", metavar="NAME", help="column with the glacier id, where it is not recognised")
    parser.add_argument("--resolution", type=float, default=30.0, metavar="M", help="pixel side in metres (default 30)")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.75,
        help="room on either side of the terminus, in widths of the front (default 0.75)",
    )
    parser.add_argument("--crs", help="CRS of the domains (default: EPSG:3413, EPSG:3031 or UTM, by place)")
    parser.add_argument(
        "--preview",
        type=flags.outside,
        metavar="HTML",
        help="write a page with box, termini and checks; with several domains one page each, FILE-NAME.html",
    )
    parser.add_argument("--catalog", metavar="NAME_OR_URL", help="show its newest clear scene in the preview")
    parser.add_argument("--period", metavar="A/B", help="days, months or years of that scene, e.g. 2019-06/2019-09")
