"""One table of a batch as bytes of a GeoParquet file of a fixed schema, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from calfin_cloud.feature_schema import FEATURE_SCHEMAS
from calfin_cloud.schema import FRONT_SCHEMA, POLYGON_SCHEMA, REJECTED_SCHEMA
from calfin_cloud.storage.files import DamagedFileError
from calfin_cloud.storage.items import unsigned

SCHEMAS = {"fronts": FRONT_SCHEMA, "rejected": REJECTED_SCHEMA, "polygons": POLYGON_SCHEMA, **FEATURE_SCHEMAS}
REMEDY = "restore it from a copy; without one, delete its batch in fronts/ and run `calfin map` again"
ROWS_IN_GROUP = 4096  # of a row group: a compacted file is read in parts by others


def to_parquet(table: gpd.GeoDataFrame, schema: pa.Schema, *, header: Mapping[str, bytes] | None = None) -> bytes:
    """Bytes of a GeoParquet 1.1 file of one fixed Arrow schema, with page checksums; the same for the same table."""
    guessed, cast = io.BytesIO(), io.BytesIO()
    # geopandas writes the geometry, but guesses the types of the columns, and of an empty one it knows nothing.
    table.to_parquet(guessed, index=False, schema_version="1.1.0", write_covering_bbox=True)
    arrow = pq.read_table(guessed)
    further = [arrow.schema.field(name) for name in arrow.column_names if name not in schema.names]
    geo = {b"geo": arrow.schema.metadata[b"geo"]}  # what pandas adds depends on how a table came about
    fixed = arrow.cast(pa.schema([*schema, *further], geo))
    with pq.ParquetWriter(cast, fixed.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(fixed, row_group_size=ROWS_IN_GROUP)
        if header:
            writer.add_key_value_metadata(header)
    return cast.getvalue()


def storable(table: gpd.GeoDataFrame, schema: pa.Schema) -> gpd.GeoDataFrame:
    """Turn what catalogues have in the place of words into words, and take signatures out of messages."""
    table = table.copy(deep=False)
    for name in (field.name for field in schema if field.type == pa.string()):
        odd = [not (isinstance(v, str) or (pd.api.types.is_scalar(v) and pd.isna(v))) for v in table[name]]
        if any(odd):
            table[name] = [str(value) if is_odd else value for value, is_odd in zip(table[name], odd, strict=True)]
    return table.assign(detail=[unsigned(detail) for detail in table["detail"]])


def open_parquet(file: Any, path: str) -> pq.ParquetFile:  # noqa: ANN401 - a file of fsspec or of io
    """Open a file whose pages are checked when they are read."""
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError(path, str(error), REMEDY) from None


def read_columns(parquet: pq.ParquetFile, path: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns; raise `DamagedFileError` where they cannot be."""
    try:
        return parquet.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError(path, str(error), REMEDY) from None


def read_whole_table(parquet: pq.ParquetFile, path: str, folder: str, crs: str) -> pa.Table:
    """Read all columns of a table, which must have the types and the CRS that all tables of the store have."""
    schema = SCHEMAS[folder].append(pa.field("geometry", pa.binary()))
    table = read_columns(parquet, path, schema.names)
    found = {field.name: field.type for field in table.schema}
    if found != {field.name: field.type for field in schema}:
        raise DamagedFileError(path, f"its columns are {table.schema.names}", REMEDY)
    try:
        geo = json.loads(table.schema.metadata[b"geo"])
        same = _is_same_crs(json.dumps(geo["columns"]["geometry"]["crs"], sort_keys=True), crs)
    except (KeyError, ValueError, TypeError, CRSError):
        raise DamagedFileError(path, "it does not say its CRS", REMEDY) from None
    if not same:
        raise DamagedFileError(path, f"its CRS is not that of the store, {crs}", REMEDY)
    return table.select(schema.names).replace_schema_metadata()


@lru_cache(maxsize=16)
def _is_same_crs(text: str, crs: str) -> bool:
    return bool(CRS(json.loads(text)) == CRS(crs))


def to_geo(tables: Sequence[pa.Table], folder: str, crs: str) -> gpd.GeoDataFrame:
    """Turn Arrow tables into one table in the CRS of the store."""
    if not tables:
        empty = pd.DataFrame({f.name: pd.Series(dtype=f.type.to_pandas_dtype()) for f in SCHEMAS[folder]})
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs), crs=crs)
    columns = pa.concat_tables(tables).to_pandas()
    return gpd.GeoDataFrame(columns, geometry=shapely.from_wkb(columns["geometry"].to_numpy()), crs=crs)
