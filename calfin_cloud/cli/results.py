"""Verbs from the fronts of a store to what people take: reports, verdicts, sequences, exports, lineage."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import how_many, note, records, tell, watcher
from calfin_cloud.cli.reading import note_elsewhere
from calfin_cloud.cli.stores import add_store

MOST_LINES = 40  # scenes with another choice that are printed


def export(options: argparse.Namespace) -> int:
    """Write a store in the formats of the community: Shapefiles of CALFIN and TermPicks, ISSM, ice masks, STAC."""
    from calfin_cloud.results.exporting import export_store, read_names

    names = read_names(options.names) if options.names else None
    paths = export_store(
        options.store,
        options.out,
        options.format,
        author=options.author,
        names=names,
        version=options.version,
        carry_months=options.carry,
        mesh=options.mesh,
        mesh_crs=options.mesh_crs,
        base=options.base,
    )
    tell(options, paths, *map(str, paths))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the results of a store as a map that opens offline in a browser, with buttons to review fronts."""
    from calfin_cloud.products import read_product
    from calfin_cloud.results import write_report
    from calfin_cloud.storage import read_store_domains

    page = write_report(
        options.store,
        options.out,
        title=options.title,
        most_pictures=options.pictures,
        references=options.reference,
        watch=watcher(options, "glacier"),
    )
    if options.reference:
        note_elsewhere(read_product(options.reference), read_store_domains(options.store), options.reference)
    tell(options, {"page": page}, str(page))
    return 0


def review(options: argparse.Namespace) -> int:
    """Keep people's verdicts beside the automatic fronts; write training pairs from accepted and redrawn ones."""
    from calfin_cloud import results

    result: dict[str, Any] = {}
    lines = []
    if options.apply:
        result["applied"] = results.apply_verdicts(options.store, results.read_verdicts(options.apply))
        lines.append(", ".join(f"{n} {verdict}" for verdict, n in result["applied"].items()) or "no verdict")
    if options.training:
        pairs = results.write_training_pairs(options.store, options.training)
        result["training"] = pairs
        lines.append(f"{how_many(len(pairs) // 2, 'training pair')}: {options.training}")
    fronts = results.reviewed_fronts(options.store)
    looked_at = fronts[fronts["verdict"] != ""][["key", "front", "verdict", "reviewer", "reviewed_at", "note"]]
    orphans = results.orphaned_verdicts(options.store)
    if len(looked_at):
        lines.append(looked_at.to_string(index=False))
    lines.append(f"{len(looked_at)} of {(fronts['state'] == 'front').sum()} fronts have a verdict")
    for orphan in orphans:
        said = " ".join(str(orphan[name]) for name in ("verdict", "key", "author", "time"))
        lines.append(f"orphaned, the line it was given on is gone: {said}")
    tell(options, result | {"verdicts": records(looked_at), "orphaned": orphans}, *lines)
    return 0


def reconcile(options: argparse.Namespace) -> int:
    """Choose the fronts that all dates of a domain together support; nothing mapped changes, nothing is read again."""
    from calfin_cloud.fronts import SequenceSettings
    from calfin_cloud.results import reconcile_store
    from calfin_cloud.results.choosing import chosen_fronts

    settings = SequenceSettings() if options.rate is None else SequenceSettings(rate_m_a_day=options.rate)
    by_domain = dict(reconcile_store(options.store, settings=settings))
    if not any(counts.total() for counts in by_domain.values()):
        tell(options, [], "nothing has changed since the fronts were last reconciled, or no domain has one")
        return 0
    fronts = chosen_fronts(options.store)
    changed = fronts.loc[~fronts["choice"].isin(["", "kept"]), ["choice", "key", "choice_why"]]
    lines = [
        f"{domain}: {', '.join(f'{n} {choice}' for choice, n in sorted(counts.items()))}"
        for domain, counts in by_domain.items()
    ]
    lines += [f"{row.choice}: {row.key}: {row.choice_why}" for row in changed.head(MOST_LINES).itertuples()]
    tell(options, records(changed), *lines)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print where the fronts of one scene come from: file, checksum, network, settings, verdicts; save its picture."""
    from calfin_cloud.results import lineage_of
    from calfin_cloud.storage import read_picture
    from calfin_cloud.whole_files import write_whole_file

    told = lineage_of(options.store, options.scene)
    tell(options, told, json.dumps(told, indent=1))
    if options.picture:
        domain, _, scene = told["key"].partition("/")
        picture = read_picture(options.store, domain, scene)
        if picture is None:
            raise ValueError(f"{told['key']} has no picture: the scene was not traced ({told['reason']})")
        write_whole_file(options.picture, picture)
        note(f"picture: {options.picture}")
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin export`."""
    add_store(parser, out=True)
    parser.add_argument(
        "--format",
        nargs="+",
        action="extend",
        required=True,
        choices=("calfin", "termpicks", "gpkg", "issm", "levelset", "icemask", "calfin-ts", "stac"),
        help="formats to write, one or more",
    )
    parser.add_argument("--author", default="calfin_cloud", help="who answers for the lines (column Author)")
    parser.add_argument(
        "--names", metavar="CSV", help="columns domain or glacier_id, and of GrnlndcN, OfficialN, AltName, RefName"
    )
    parser.add_argument("--version", default="1.0", help="version of the data, in file names (default 1.0)")
    told = "icemask: months without a scene take the ice of up to this many months before (default 0: none)"
    parser.add_argument("--carry", type=int, default=0, metavar="MONTHS", help=told)
    told = "levelset: one file of all domains at its x and y, not one each on grids (NetCDF as of ISSM, or a table)"
    parser.add_argument("--mesh", type=Path, metavar="FILE", help=told)
    parser.add_argument("--base", type=Path, metavar="FILE", help="levelset on a mesh: ice outside of all domains")
    parser.add_argument("--mesh-crs", metavar="CRS", help="CRS of the mesh (default that of the store)")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin report`."""
    add_store(parser, out=True)
    parser.add_argument("--title", default="", help="title of the page (default: the names of the glaciers)")
    told = "most pictures to include, of the latest scenes (default 1500)"
    parser.add_argument("--pictures", type=flags.natural, default=1500, metavar="N", help=told)
    parser.add_argument("--reference", metavar="FILE", help="hand-drawn fronts, shown as a layer of their own")


def add_review(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin review`."""
    add_store(parser)
    parser.add_argument("--apply", type=Path, metavar="FILE", help="verdicts, as the report saves them")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="write reviewed scenes for `calfin train` into this folder"
    )


def add_reconcile(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin reconcile`."""
    add_store(parser)
    told = "metres a day that a front moves at most, but for calving (default 50: no glacier is faster)"
    parser.add_argument("--rate", type=float, metavar="M", help=told)


def add_show(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin show`."""
    add_store(parser)
    parser.add_argument("scene", metavar="SCENE", help="scene id, or DOMAIN/SCENE")
    parser.add_argument(
        "--picture", type=flags.outside, metavar="PNG", help="save the picture of the scene with its fronts"
    )
