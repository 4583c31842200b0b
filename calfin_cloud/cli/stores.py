"""Verbs that look after a store: what is in it, fewer files, shards made one."""

from __future__ import annotations

import argparse
import logging
from datetime import UTC, datetime
from pathlib import Path

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import note, tell


def status(options: argparse.Namespace) -> int:
    """Count the scenes of a store by state and reason; the counts must add up to the scenes that searches found."""
    from calfin_cloud.storage import count_scenes, read_fronts, told_change, told_holder

    if options.serve:
        from calfin_cloud.exporter import serve

        serve(options.store, options.serve)
    counts = count_scenes(options.store)
    lines = ["\t".join(str(row[name]) for name in ("scenes", "state", "reason")) for row in counts["reasons"]]
    lines.append(f"{counts['pending']}\tpending\tfound, but not mapped: the next `calfin map` maps them")
    if counts["behind"]:
        told = "of these, could not be mapped or traced again: `calfin retry` tries them"
        lines.append(f"{counts['behind']}\tbehind\t{told}")
    lines.append(f"{counts['found']}\tscenes")
    writer = counts["written_by"]
    if writer:
        lines.append(told_holder(writer))
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if (mark := counts["unfinished"]) and (not writer or writer["free_from"] == "now" or writer["free_from"] < now):
        lines.append(told_change(mark, options.store))
    tell(options, counts, *lines)
    if counts["states"]["failed"] and not options.json:
        fronts = read_fronts(options.store)
        for scene in fronts[fronts["state"] == "failed"].drop_duplicates("key").itertuples():
            note(f"{scene.key}: {scene.reason}: {scene.detail}")
    for wrong in counts["wrong"]:
        note(f"the counts do not add up: {wrong}", level=logging.ERROR)
    return 1 if counts["wrong"] else 0


def compact(options: argparse.Namespace) -> int:
    """Merge a store's many small files into few; meanwhile readers that are not calfin's may see rows twice or fail."""
    from calfin_cloud.storage import compact_store

    before, after = compact_store(options.store, scenes_a_file=options.scenes)
    tell(options, {"before": before, "after": after}, f"files of fronts: {before} before, {after} now")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Merge the stores of shards, below STORE/shards, into the store itself."""
    from calfin_cloud.storage import merge_stores, shard_places

    shards = shard_places(options.store)
    names = merge_stores(options.store, shards)
    said = f"{len(names)} new domains of {len(shards)} shards: {options.store}"
    tell(options, {"domains": names, "shards": len(shards), "store": options.store}, said)
    return 0


def add_store(parser: argparse.ArgumentParser, *, out: bool = False) -> None:
    """Add the store that a verb takes, and a folder to write into."""
    parser.add_argument("store", metavar="STORE", help="folder or bucket address that `calfin map` wrote to")
    if out:
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write into")


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin status`."""
    add_store(parser)
    told = "serve the counts to Prometheus on this port until interrupted"
    parser.add_argument("--serve", type=flags.port, metavar="PORT", help=told)


def add_compact(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin compact`."""
    add_store(parser)
    parser.add_argument(
        "--scenes",
        type=flags.count,
        default=4096,
        metavar="N",
        help="merge files into ones of up to this many scenes (default 4096)",
    )
