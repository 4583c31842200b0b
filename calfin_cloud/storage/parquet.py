"""One table of a batch as bytes of a GeoParquet file of a fixed schema, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
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
    """Bytes of a GeoParquet 1.1 file of one fixed Arrow schema, with page checksums; the same for the same table.

    What catalogues have in the place of words becomes words, and messages lose their signatures.
    """
    further, geo = _layout(table.crs)
    shapes = np.asarray(table["geometry"].array)
    columns = [_column(table[field.name], field) for field in schema]
    wkb = pa.array(shapely.to_wkb(shapes, flavor="iso"), pa.binary())
    corners = shapely.bounds(shapes).T
    box = pa.StructArray.from_arrays([pa.array(c, from_pandas=True) for c in corners], fields=list(further[1].type))
    fixed = pa.schema([*schema, *further], {b"geo": json.dumps(_geo(geo, shapes)).encode()})
    file = io.BytesIO()
    with pq.ParquetWriter(file, fixed, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(pa.Table.from_arrays([*columns, wkb, box], schema=fixed), row_group_size=ROWS_IN_GROUP)
        if header:
            writer.add_key_value_metadata(header)
    return file.getvalue()


@lru_cache(maxsize=16)
def _layout(crs: CRS | None) -> tuple[list[pa.Field], dict[str, Any]]:
    """Fields of geometry and box, and GeoParquet's metadata, as geopandas writes them: once a CRS, in 10 ms."""
    file = io.BytesIO()
    gpd.GeoDataFrame(geometry=[], crs=crs).to_parquet(
        file, index=False, schema_version="1.1.0", write_covering_bbox=True
    )
    schema = pq.read_schema(file)
    return [schema.field("geometry"), schema.field("bbox")], json.loads(schema.metadata[b"geo"])


def _geo(layout: Mapping[str, Any], shapes: NDArray[np.object_]) -> dict[str, Any]:
    """Metadata of GeoParquet with the types of geometries (n,) and the box around all of them."""
    there = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    of_all = {"bbox": shapely.total_bounds(there).tolist()} if len(there) else {}
    names = sorted({s.geom_type + " Z" * s.has_z for s in shapes if s is not None})
    column = layout["columns"]["geometry"]
    column = {
        **{k: column[k] for k in ("encoding", "crs")},
        "geometry_types": names,
        **of_all,
        "covering": column["covering"],
    }
    return {**layout, "columns": {"geometry": column}}


def _column(values: pd.Series, field: pa.Field) -> pa.Array:
    """Arrow array of a column; missing values are null."""
    if field.type != pa.string():
        return pa.array(values, field.type, from_pandas=True)
    words = [str(v) if _is_odd(v) else v for v in values]
    return pa.array([unsigned(w) for w in words] if field.name == "detail" else words, field.type, from_pandas=True)


def _is_odd(value: Any) -> bool:  # noqa: ANN401 - whatever a catalogue has
    return not (isinstance(value, str) or (pd.api.types.is_scalar(value) and pd.isna(value)))


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
