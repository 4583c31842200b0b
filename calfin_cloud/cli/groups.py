"""Flags that several verbs take: where and when to look, the network, settings of a run, its workers."""

from __future__ import annotations

import argparse
import os

from calfin_cloud.cli import flags
from calfin_cloud.cli.searching import FEW_SCENES
from calfin_cloud.public_catalogs import NAMES


def add_find(parser: argparse.ArgumentParser, *, images: bool, required: bool = True) -> None:
    """Add what says where and when to look; `images` allows plain GeoTIFFs in place of a catalogue."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--catalog",
        metavar="URL_OR_FILE",
        help=f"STAC API, static catalogue, item collection file (GeoJSON, stac-geoparquet), or a name: {NAMES}",
    )
    parser.set_defaults(images=None)
    if images:
        flags.many(source, "--images", "GeoTIFFs in place of a catalogue", metavar="GEOTIFF")
        flags.many(parser, "--datetime", "when the images were taken: one date for all, or one each", metavar="DATE")
        parser.add_argument("--platform", default="unknown", help="satellite that took the images (default unknown)")
    parser.add_argument(
        "--domains", required=required, metavar="FILE", help="domain file or address, see `calfin domains`"
    )
    flags.many(parser, "--domain", "only the domains with these names", metavar="NAME")
    parser.add_argument(
        "--period",
        metavar="A/B",
        help="days, months or years, e.g. 2019-06/2019-09; last-30-days; newest-30-days counts back from the newest "
        "scene of the store",
    )
    flags.many(parser, "--collections", "only these collections", metavar="ID")
    parser.add_argument(
        "--max-scene-cloud",
        type=float,
        metavar="PERCENT",
        help="skip scenes that the catalogue calls cloudier (eo:cloud_cover of a whole scene, 0 to 100; default: none)",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the network, what runs it, and the variant."""
    parser.add_argument(
        "--network",
        metavar="NAME_OR_PATH",
        help="neural network: calfin-efficient (default), calfin-small-2, calfin-small, or a file of weights",
    )
    add_engine(parser)
    flags.add_variant(parser)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add what runs the network."""
    parser.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "keras", "keras-bfloat16", "openvino"),
        help="what runs the network (default auto: openvino where there is no GPU, if the weights come with a file for "
        "it); the fronts are the same; bfloat16 is faster on a GPU and moves fronts slightly",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what decides the results of a run, and their batches."""
    add_network(parser)
    parser.add_argument(
        "--batch-size",
        type=flags.count,
        default=32,
        metavar="N",
        help="number of scenes that are written together (default 32)",
    )
    parser.add_argument(
        "--max-cloud",
        type=flags.share,
        default=0.15,
        metavar="SHARE",
        help="leave out scenes with more than this share of the domain under cloud, 0 to 1 (default 0.15)",
    )
    parser.add_argument(
        "--max-nodata",
        type=flags.share,
        default=0.25,
        metavar="SHARE",
        help="leave out scenes with more than this share of the domain without data, 0 to 1 (default 0.25)",
    )
    flags.many(
        parser,
        "--features",
        "measure these in each scene too, in tables of their own: icebergs melange plumes (default none, with "
        "--recompute those of the store)",
        choices=("icebergs", "melange", "plumes"),
        metavar="FEATURE",
        default=[],
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add where the work is done, by how many workers, and what these are."""
    parser.add_argument(
        "--cluster",
        default=os.environ.get("DASK_SCHEDULER_ADDRESS", "auto"),
        metavar="auto|local|cuda|kubernetes|gateway|none|ADDRESS",
        help="workers on this machine, on its GPUs, in pods of the Dask operator, behind a Dask Gateway, none at all, "
        "or those of a scheduler at tcp://host:port (the default where DASK_SCHEDULER_ADDRESS names one); auto, the "
        f"default elsewhere, is none below {FEW_SCENES} scenes and local above",
    )
    parser.add_argument(
        "--workers",
        type=flags.workers,
        metavar="N|MIN:MAX",
        help="workers to start; with two numbers Dask starts and ends them as the work asks",
    )
    parser.add_argument("--worker-memory", type=flags.json_value, metavar="SIZE", help="memory of a worker, e.g. 4GiB")
    flags.many(
        parser,
        "--cluster-option",
        "further options of the cluster, e.g. image=NAME:TAG namespace=NAME gpu_workers=2 (kubernetes), or what the "
        "server of the gateway offers",
        type=flags.option,
        metavar="KEY=VALUE",
        default=[],
    )
