"""Catalogues frozen into one file, stac-geoparquet: a run planned from it finds the same scenes tomorrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pystac
from stac_geoparquet.arrow import parse_stac_items_to_parquet, stac_table_to_items

from calfin_cloud.object_stores import open_files
from calfin_cloud.scenes.listing import sort_unique
from calfin_cloud.whole_files import whole_file

ENDINGS = (".parquet", ".geoparquet")
ROWS_AT_ONCE = 1024  # items of which those that are wanted become Python values: 25 MB
Bounds = tuple[float, float, float, float]


def is_frozen(address: str) -> bool:
    """Tell by its name whether a catalogue is a file of stac-geoparquet.

    >>> is_frozen("s3://bucket/greenland.parquet?versionId=1")
    True
    """
    return address.partition("?")[0].endswith(ENDINGS)


def read_frozen(
    address: str, bounds: Bounds, period: tuple[datetime | None, datetime | None]
) -> Iterator[dict[str, Any]]:
    """Read the items of a frozen catalogue whose boxes touch `bounds` (west, south, east, north), within a period."""
    fs, path = open_files(address)
    with fs.open(path) as file:
        parquet = pq.ParquetFile(file)
        for batch in parquet.iter_batches(ROWS_AT_ONCE):
            table = _touching(pa.Table.from_batches([batch]), bounds, period)
            if len(table):
                yield from map(_without_nulls, stac_table_to_items(table))


def freeze_scenes(items: Iterable[pystac.Item], path: str | Path) -> int:
    """Write items as stac-geoparquet, sorted by time and id, each id once; return their number.

    Raises
    ------
    ValueError
        The name of the file ends otherwise, or there is no item.

    Examples
    --------
    >>> freeze_scenes(stream_scenes("earth-search", domain, "2019"), "2019.parquet")               # doctest: +SKIP
    70
    """
    if not is_frozen(str(path)):
        raise ValueError(f"a frozen catalogue is a file whose name ends in {' or '.join(ENDINGS)}, got {path}")
    features = list(sort_unique((i.to_dict(transform_hrefs=False) for i in items), name=str(path)))
    if not features:
        raise ValueError(f"there are no scenes to freeze into {path}: check period, collections and domains")
    with whole_file(path) as unfinished:
        parse_stac_items_to_parquet(features, output_path=unfinished, schema="FullFile")
    return len(features)


def _touching(table: pa.Table, bounds: Bounds, period: tuple[datetime | None, datetime | None]) -> pa.Table:
    """Rows that may touch bounds and lie in a period; rows without box or time are left to be judged one by one."""
    keep = pa.array([True] * len(table))
    if "bbox" in table.column_names and pa.types.is_struct(table["bbox"].type):
        box = {side: pc.struct_field(table["bbox"], side) for side in ("xmin", "ymin", "xmax", "ymax")}
        west, south, east, north = bounds
        across = pc.greater(box["xmin"], box["xmax"])  # the antimeridian
        beside = pc.and_(pc.less_equal(box["xmin"], east), pc.greater_equal(box["xmax"], west))
        level = pc.and_(pc.less_equal(box["ymin"], north), pc.greater_equal(box["ymax"], south))
        keep = pc.and_(keep, pc.fill_null(pc.and_(pc.or_(beside, across), level), True))
    if "datetime" in table.column_names:
        start, end = period
        for limit, holds in ((start, pc.greater_equal), (end, pc.less_equal)):
            if limit is not None:
                keep = pc.and_(keep, pc.fill_null(holds(table["datetime"], pa.scalar(limit)), True))
    return table.filter(keep)


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Leave out what a table has as null because other rows have it; a geometry or a time may be null in an item."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(of) for key, of in value.items() if of is not None or key in ("geometry", "datetime")
        }
    return [_without_nulls(of) for of in value] if isinstance(value, list | tuple) else value
