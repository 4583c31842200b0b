"""A store as one object for a notebook: fronts, masks, positions and domains, each read when it is asked for."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import xarray as xr

from calfin_cloud.domains import Domain
from calfin_cloud.object_stores import store_text
from calfin_cloud.results.exploring import Explorer, explore
from calfin_cloud.results.reporting import write_report
from calfin_cloud.results.reviewing import reviewed_fronts
from calfin_cloud.results.seaward import features_of
from calfin_cloud.results.series import Series, measure_series, store_product
from calfin_cloud.storage import read_masks, read_polygons, read_rejected, read_store, read_store_domains


@dataclass(frozen=True, repr=False)
class Store:
    """What `calfin map` has made at one place; see `open_store`."""

    uri: str

    def __fspath__(self) -> str:
        """Return the address, so that what takes an address takes the store too."""
        return self.uri

    __str__ = __fspath__

    @cached_property
    def made_by(self) -> dict[str, Any]:
        """CRS, network, code version and settings."""
        return read_store(self.uri)

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """Domains by name."""
        return {domain.name: domain for domain in read_store_domains(self.uri)}

    @cached_property
    def fronts(self) -> gpd.GeoDataFrame:
        """Fronts with the last verdict of people on each, at least a row a scene (`schema.FRONT_SCHEMA`)."""
        return reviewed_fronts(self.uri)

    @cached_property
    def rejected(self) -> gpd.GeoDataFrame:
        """Rejected candidates and why (`schema.REJECTED_SCHEMA`)."""
        return read_rejected(self.uri)

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """Ocean and ice of each scene (`schema.POLYGON_SCHEMA`)."""
        return read_polygons(self.uri)

    @cached_property
    def features(self) -> dict[str, gpd.GeoDataFrame]:
        """Icebergs, melange and plumes, as far as they were asked for (`feature_schema.FEATURE_SCHEMAS`)."""
        return features_of(self.uri)

    @cached_property
    def masks(self) -> dict[str, xr.DataArray]:
        """Masks by domain, (time, mask, y, x) probabilities, read lazily."""
        return {name: read_masks(self.uri, name) for name in self.domains}

    @cached_property
    def series(self) -> Series:
        """Positions, rates, mean years and flags of all glaciers."""
        return measure_series(*store_product(self.uri))

    @property
    def positions(self) -> pd.DataFrame:
        """Position of each front in m, with its uncertainty; `change_m` is the advance since the start."""
        return self.series.positions

    def write_report(self, folder: str | Path, **options: Any) -> Path:  # noqa: ANN401 - those of write_report
        """Write the map of the store, see `write_report`."""
        return write_report(self.uri, folder, **options)

    def explore(self, **options: Any) -> Explorer:  # noqa: ANN401 - those of explore
        """Make the interactive map of the store for a notebook, see `explore`."""
        return explore(self.uri, **options)

    def __repr__(self) -> str:
        n_domains, n_fronts = len(self.domains), int((self.fronts["state"] == "front").sum())
        told = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((n_domains, "domain"), (n_fronts, "front"))]
        return f"Store({self.uri!r}: {told[0]}, {self.made_by['crs']}, {told[1]})"

    def _repr_html_(self) -> str:
        counts = self.fronts.drop_duplicates("key")["state"].value_counts()
        found = self.fronts[self.fronts["state"] == "front"]
        rows = [
            (name, str((found["domain"] == name).sum()), *_span(found[found["domain"] == name]["datetime"]))
            for name in list(self.domains)[:20]
        ]
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in rows)
        told = ", ".join(f"{n} {state}" for state, n in counts.items())
        more = f"<p>and {len(self.domains) - 20} more</p>" if len(self.domains) > 20 else ""
        heads = "".join(f"<th>{name}</th>" for name in ("domain", "fronts", "first", "last"))
        n_domains = f"{len(self.domains)} domain{'' if len(self.domains) == 1 else 's'}"
        place = f"{n_domains} in {self.made_by['crs']}; scenes: {told}; network {self.made_by.get('model', 'unknown')}"
        return (
            f"<div><b>{html.escape(self.uri)}</b><br>{html.escape(place)}</div>"
            f"<table><tr>{heads}</tr>{cells}</table>{more}"
        )


def open_store(uri: str | Path) -> Store:
    """Open a store of `calfin map` for reading: a folder or an object prefix.

    Parameters
    ----------
    uri
        Folder or object prefix that `calfin map` made.

    Returns
    -------
    Store
        `.fronts`, `.positions`, `.masks`, `.polygons`, `.rejected`, `.domains`, `.series`, `.made_by`, each read
        when it is first asked for.

    Raises
    ------
    ValueError
        There is no store.

    Examples
    --------
    >>> store = cc.open_store("fronts")
    >>> store
    Store('fronts': 1 domain, EPSG:3413, 1 front)
    >>> store.masks["Harald-Moltke-Brae"].sizes["mask"]
    2
    """
    store = Store(store_text(uri))
    _ = store.made_by  # so that a wrong address is told at once
    return store


def _span(dates: pd.Series) -> tuple[str, str]:
    return ("", "") if dates.empty else (f"{dates.min():%Y-%m-%d}", f"{dates.max():%Y-%m-%d}")
