"""Fronts, lines and shapes that a call names: of stores and of vector files."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calfin_cloud.cli.output import how_many, note

VECTOR_SUFFIXES = {".shp", ".geojson", ".json", ".gpkg", ".parquet", ".csv", ".txt"}
"""A source that is called so is a vector file, even if it is missing: it shall not be taken for a store."""
MOST_NAMED = 8  # glaciers in a line
NEAR_M = 50_000.0  # further from its place in the index fronts are of another glacier


def read_fronts(source: str, options: argparse.Namespace, *, by_place: bool = False) -> tuple[Any, Any]:
    """Fronts of a store, with the lines it knows, or of a vector file.

    Of `--glaciers` alone, unless they are found by their place: the other one of two products has names of its own.
    """
    from calfin_cloud.products import read_product
    from calfin_cloud.results import Lines, cut_to_boxes, move_lines, store_product
    from calfin_cloud.vectors import crs_of

    columns = _columns_of(source, options)
    if _is_vector_file(source):
        fronts, lines = read_product(source, columns), Lines()
    else:
        fronts, lines = store_product(source)
    known = sorted(fronts["glacier_id"].unique())
    wanted = [_id_of(text, fronts) for text in ([] if by_place else options.glaciers or [])]
    if wanted:
        fronts = fronts[fronts["glacier_id"].isin(wanted)]
    if not known:
        told = "" if _is_vector_file(source) else ": `calfin status` counts why scenes have none"
        raise ValueError(f"{source} has no front, so there is nothing to measure{told}")
    if fronts.empty:
        raise ValueError(f"{source} has no front of {options.glaciers}; its glaciers are {known[:20]}")
    if missing := sorted(set(wanted).difference(known)):
        note(f"{source} has no front of {missing}")
    if options.crs:
        lines = move_lines(lines, fronts.crs, crs := crs_of(options.crs))
        fronts = fronts.to_crs(crs)
    return (cut_to_boxes(fronts, boxes) if (boxes := getattr(options, "boxes", None)) else fronts), lines


def _id_of(text: str, fronts: Any) -> str:  # noqa: ANN401 - a table
    """Id of the glacier of some fronts that is called so: by its id, its domain in a store, or a name of the index.

    A text that names none of them is returned as it is.
    """
    from calfin_cloud.glaciers import find_glacier

    ids = fronts["glacier_id"]
    of_domain = ids[fronts["key"].str.startswith(f"{text}/")]
    if (ids == text).any():
        return text
    if of_domain.nunique() == 1:
        return str(of_domain.iloc[0])
    try:
        glacier = find_glacier(text)
    except ValueError:  # it may be an id of the other one of two files
        return text
    mine = fronts[ids == (found := glacier.id or glacier.name)]
    return found if len(mine) and _is_near(glacier, mine) else text


def _is_near(glacier: Any, fronts: Any) -> bool:  # noqa: ANN401 - a glacier of the index, a table
    """Whether fronts lie where a glacier of the index is: another product may have its number for another one."""
    import pyproj

    place = fronts.geometry.iloc[[0]].representative_point().to_crs(4326).iloc[0]
    _, _, apart = pyproj.Geod(ellps="WGS84").inv(place.x, place.y, glacier.lon, glacier.lat)
    return bool(apart <= NEAR_M)


def note_unnamed(fronts: Any, source: str, *, authors: bool = False) -> None:  # noqa: ANN401 - a table
    """Say where no column names the glaciers of fronts, which are then taken for one, or their authors."""
    if (fronts["glacier_id"] == "").all():
        note(f"{source} names no glaciers; `--columns glacier_id=COLUMN` says which column does")
    if authors and fronts["author"].nunique() < 2:
        note(f"{source} names no two authors; `--columns author=COLUMN` says which column does")


def note_elsewhere(reference: Any, domains: Sequence[Any], source: str) -> None:  # noqa: ANN401 - a table
    """Say where no line of a reference lies in a domain: distances to it would mean nothing."""
    if not len(reference) or not domains:
        return
    lines = reference.to_crs(domains[0].crs).geometry
    if not any(lines.intersects(domain.polygon).any() for domain in domains):
        note(
            f"no line of {source} lies in a domain: check its CRS, and that longitude or x comes first in it",
            level=logging.WARNING,
        )


def note_no_pair(a: Any, b: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - tables
    """Say why two products, or without `b` the authors of one, have no pair: ids, or dates too far apart."""
    import pandas as pd

    none = f"no pair of fronts within {options.days:g} days"
    if b is None:
        note(f"{none} by two authors: name a second store or file to compare with")
        note_unnamed(a, options.a, authors=_is_vector_file(options.a))
        return
    note_unnamed(a, options.a)
    note_unnamed(b, options.b)
    ids_of = [set(fronts["glacier_id"]) - {""} for fronts in (a, b)]
    if options.by_place:
        note(f"{none} lies beside each other: check the dates and the CRS of both")
    elif common := set.intersection(*ids_of):
        pairs = a.merge(b[b["glacier_id"].isin(common)], on="glacier_id")
        apart = float((pairs["datetime_x"] - pairs["datetime_y"]).abs().min() / pd.Timedelta(days=1))
        note(f"{none}: those of one glacier that are nearest in time are {apart:.0f} days apart, see --days")
    else:
        told = [f"{source}: {_named(sorted(ids))}" for source, ids in zip((options.a, options.b), ids_of, strict=True)]
        note(f"{none}: no glacier has one id in both, use --by-place ({'; '.join(told)})")


def _is_vector_file(source: str) -> bool:
    file = Path(source.partition("|layername=")[0])
    return file.is_file() or file.suffix in VECTOR_SUFFIXES


def _columns_of(source: str, options: argparse.Namespace) -> dict[str, str]:
    """Names of columns for one of the files of fronts of a call: of two files each takes those that it has."""
    from calfin_cloud.vectors import read_vectors

    sources = [given for name in ("fronts", "against", "a", "b") if (given := getattr(options, name, None))]
    files, named = [*filter(_is_vector_file, sources)], _pairs(options.columns)
    if named and not files:
        raise ValueError(
            f"--columns names columns of a vector file of fronts, got {', '.join(sources)}, which would be a store, "
            "whose columns are known: leave it out"
        )
    if not named or len(files) < 2:
        return dict(named)
    has = {file: set(read_vectors(file, "file of fronts")) for file in files}
    of_none = {name for _, name in named}.difference(*has.values())  # they stay, and are refused by name
    return {ours: name for ours, name in named if name in of_none | has.get(source, set())}


def with_files(lines: Any, fronts: Any, options: argparse.Namespace) -> Any:  # noqa: ANN401 - `Lines`, a table
    """Add what the files of a call know of centrelines, boxes, ice and velocity; say where the sea is in doubt."""
    from calfin_cloud.results import read_lines
    from calfin_cloud.results.boxes import doubtful_sea

    files = {name: getattr(options, name, None) for name in ("centerlines", "boxes", "ice", "velocity")}
    known, lines = lines, read_lines(lines, fronts, **files)
    if options.ice:
        _tell_sea(fronts, known, lines, options.ice)
    far, untold = doubtful_sea(fronts, lines)
    if options.ice and far:
        note(
            f"{options.ice} has little ice behind the fronts of {_named(far)}: where it lacks theirs, the sea is "
            "sought on the wrong side, and changes have the other sign"
        )
    if untold:
        note(f"no ice tells where the sea of {_named(untold)} lies: centrelines are taken to run from ice to sea")
    return lines


def _tell_sea(fronts: Any, known: Any, lines: Any, ice: str) -> None:  # noqa: ANN401 - a table, `Lines`
    """Say where a file of ice puts the sea; refuse one that turns most of the seas that a store knows."""
    from calfin_cloud.results.boxes import seas_deg

    seas, stored = seas_deg(fronts, lines), seas_deg(fronts, known)
    both = [glacier for glacier in seas if glacier in stored]
    turned = [glacier for glacier in both if 90 < abs(seas[glacier] - stored[glacier]) < 270]
    if 2 * len(turned) > len(both):
        raise ValueError(
            f"{ice} has the sea of {_named(turned)} on the other side than the scenes of the store: is it "
            "ocean? Give polygons of ice or basins, or leave --ice out: the store knows its sea"
        )
    if turned:
        note(f"{ice} has the sea of {_named(turned)} on the other side than the scenes of the store")
    if seas:
        told = ", ".join(f"{glacier} {sea:.0f}" for glacier, sea in [*seas.items()][:MOST_NAMED])
        note(f"by {ice} the sea lies at, in degrees from north: {told}{', ...' if len(seas) > MOST_NAMED else ''}")


def _named(glaciers: list[str]) -> str:
    """How many glaciers, and the first of them."""
    names = ", ".join(glaciers[:MOST_NAMED]) + (", ..." if len(glaciers) > MOST_NAMED else "")
    return f"{how_many(len(glaciers), 'glacier')} ({names})"


def read_regions(path: str | None) -> Any:  # noqa: ANN401 - a table
    """Read the polygons of regions, where a file is named."""
    table = read_polygons(path, "file of regions")
    if table is None:
        return None
    if "region" not in table:
        raise ValueError(f"the file of regions {path} has no column `region`, got {list(table)}: rename the one it is")
    if table["region"].isna().any() or table["region"].astype(str).isin(["", "all"]).any():
        raise ValueError(
            f"the file of regions {path} has one without a name, or called `all`, as their sum is: name it"
        )
    return table


def read_polygons(path: str | None, what: str) -> Any:  # noqa: ANN401 - a table
    """Read polygons, where a file is named; `what` it is to the user goes into messages."""
    from calfin_cloud.vectors import read_vectors

    return read_vectors(path, what, of="polygons") if path else None


def _pairs(texts: list[str] | None) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(pair) for pair in pairs if not pair[0] or not pair[2]]:
        raise ValueError(f"--columns takes OURS=THEIRS, got {wrong}: for example datetime=when")
    return [(ours, theirs) for ours, _, theirs in pairs]
