"""Values of flags: what a call writes, read or refused with what was expected."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRACED = ("default", "calfin", "mohajerani", "zhang", "baumhoer")
VARIANTS = (*TRACED, "tiles", "once", "fast")
GEOJSON = (".geojson", ".json")
MOST_PORT = 65_535


def many(parser: Any, flag: str, help_: str, **more: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add a flag that takes one or more values and may be repeated."""
    parser.add_argument(flag, nargs="+", action="extend", help=help_, **more)


def workers(text: str) -> int | tuple[int, int]:
    """Read a number, or two with a colon between."""
    fewest, colon, most = text.partition(":")
    if not fewest.isdigit() or (colon and not most.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a number, as 4, or two, as 2:16, got {text!r}")
    return (int(fewest), int(most)) if colon else int(fewest)


def shard(text: str) -> tuple[int, int]:
    """Read K/N with 1 <= K <= N."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"must be K/N with 1 <= K <= N, got {text!r}")
    return int(k), int(n)


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def port(text: str) -> int:
    """Read the number of a port."""
    if not (text.isdigit() and 1 <= int(text) <= MOST_PORT):
        raise argparse.ArgumentTypeError(f"must be the number of a port from 1 to {MOST_PORT}, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number from 0 on."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Read a number above 0."""
    return _number(text, lambda number: number > 0, "a number above 0")


def not_negative(text: str) -> float:
    """Read a number from 0 on."""
    return _number(text, lambda number: number >= 0, "a number from 0 on")


def share(text: str) -> float:
    """Read a share from 0 to 1."""
    return _number(text, lambda number: 0 <= number <= 1, "a share from 0 to 1, as 0.15 for 15 %")


def _number(text: str, is_good: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not is_good(number) or math.isinf(number):
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}")
    return number


def outside(text: str) -> Path:
    """Read the path of a result, which may not lie in a store."""
    from calfin_cloud.storage import outside_stores

    try:
        return outside_stores(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def geojson(text: str) -> Path:
    """Read the path of a file to write as GeoJSON, whose ending, if it has one, may not promise another format."""
    path = outside(text)
    if path.suffix.lower() not in ("", *GEOJSON):
        raise argparse.ArgumentTypeError(
            f"is written as GeoJSON, to a name that ends in {' or '.join(GEOJSON)}, got {text!r}: "
            "ogr2ogr makes other formats of it"
        )
    return path


def weights_name(text: str) -> str:
    """Read the name of weights, which becomes that of files."""
    from calfin_cloud.schema import check_name

    try:
        return check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def option(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, got {text!r}")
    return key, json_value(value)


def json_value(text: str) -> Any:  # noqa: ANN401 - number, truth, list, ...
    """Read a value as JSON where it is JSON, else as it stands: 4 is a number, 4GiB a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names settings."""
    parser.add_argument(
        "--variant",
        default="default",
        choices=VARIANTS,
        help="settings of all steps: default; tiles was the default until version 0.2.0, for stores made "
        "with it; once shows radar pictures to the network once too, in two fifths of the time; fast is once with "
        "8-bit arithmetic, in half the time; the others are the settings of CALFIN's release for one of its data sets",
    )
