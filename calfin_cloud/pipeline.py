"""The main job: domains and a search become masks and fronts in a store, batch by batch, resumable at any time."""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
from dask import delayed
from distributed import Client
from distributed.scheduler import KilledWorker
from numpy.typing import NDArray
from shapely.geometry import LineString, mapping

from calfin_cloud.domains import Domain
from calfin_cloud.figures import MAX_PICTURES, contact_sheet, report_html, scene_png
from calfin_cloud.fronts import Trace, TraceSettings, georeference, trace_fronts
from calfin_cloud.imagery import read_image, scene_fractions, stack_scenes
from calfin_cloud.inference import InferenceSettings, predict_masks, predict_scene, prepare_scene, prepare_scenes
from calfin_cloud.network import DEFAULT_NETWORK, load_network, network_id
from calfin_cloud.schema import FAILURES, FRONT_SCHEMA, SceneError, front_key
from calfin_cloud.sensors import may_be_slc_off
from calfin_cloud.storage import (
    add_scenes,
    finished_keys,
    open_store,
    read_picture,
    read_scene_masks,
    read_store,
    write_document,
    write_fronts,
    write_masks,
    write_picture,
)

log = logging.getLogger(__name__)

BATCHES_ALIVE = 3  # one is read while one is predicted and one is traced; bounds the live tasks
MOST_YEARS = 4
PLAIN_RESOLUTION_M = 30.0  # of an image that says nothing; decides only which gaps are looked across

FindScenes = Callable[[Domain], Sequence[pystac.Item]]
Result = dict[str, Any] | Exception
Feature = dict[str, Any]


@dataclass(frozen=True)
class MapSettings:
    """What decides a front, saved with the store: the limits of cloud and nodata are the original's (2.1)."""

    network: str = DEFAULT_NETWORK
    max_cloud: float = 0.15
    max_nodata: float = 0.25
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    trace: TraceSettings = field(default_factory=TraceSettings)


@dataclass(frozen=True)
class Batch:
    """Scenes of one domain that are written together; `places` are theirs on the time axis of the masks."""

    domain: Domain
    items: Sequence[pystac.Item]
    places: Sequence[int]


class Target(NamedTuple):
    """Where the results of one scene go."""

    store: str
    domain: Domain
    place: int
    scene_id: str


def map_fronts(
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    store: str,
    *,
    settings: MapSettings | None = None,
    client: Client | None = None,
    batch_size: int = 32,
    on_batch: Callable[[gpd.GeoDataFrame], None] | None = None,
) -> Counter[str]:
    """Map the calving fronts of all scenes of the domains into a store and count the states they ended in.

    Scenes that the store has already are left alone, so an interrupted run resumes and a second run writes nothing.

    Parameters
    ----------
    domains
        All in one CRS, which becomes that of the fronts table.
    find_scenes
        Items of a domain, sorted and unique, e.g. ``partial(search_scenes, catalog, period="2019/2021")``.
    store
        fsspec URI: a folder or an object prefix.
    client
        A Dask client; without one, scenes are mapped one after the other in this process.
    batch_size
        Scenes that are written together; a killed run repeats at most the batches that were under way.

    Returns
    -------
    Counter
        `found`, `known` (in the store before), and the new scenes by state: found = known + front + no_front + failed.
    """
    settings = settings or MapSettings()
    crs = {d.crs for d in domains}
    if len(crs) != 1:
        raise ValueError(
            f"the domains of a store must share one CRS, got {sorted(crs)}: map each CRS into its own store"
        )
    load_network(settings.network)  # a wrong name or hash ends the run here, not scene by scene
    made_by = {"settings": asdict(settings), "model": network_id(settings.network), "code": version("calfin-cloud")}
    open_store(store, crs=crs.pop(), made_by=made_by)
    counts: Counter[str] = Counter(found=0, known=0, front=0, no_front=0, failed=0)
    batches = _plan(domains, find_scenes, store, batch_size, counts)
    run = partial(_map_batch, store=store, settings=settings, client=client)
    for fronts in _windowed(run, batches, alive=BATCHES_ALIVE if client else 1):
        counts.update(fronts.drop_duplicates("key")["state"].tolist())
        log.info("%s: %d scenes, so far %s", fronts["domain"].iloc[0], fronts["key"].nunique(), dict(counts))
        if on_batch:
            on_batch(fronts)
    return counts


def trace_image(
    path: str | Path, *, network: str = DEFAULT_NETWORK, trace: TraceSettings | None = None
) -> list[Feature]:
    """Trace the fronts of a plain image, without a domain: a GeoJSON feature a front, at least one an image.

    Properties `image, front, state, reason, detail, confidence`; geometry a LineString or None in pixel coordinates:
    x = column, y = row, the centre of the first pixel at (0, 0).
    """
    try:
        grey = read_image(path)
        channels = prepare_scene(np.stack([grey, np.full_like(grey, np.nan)]), PLAIN_RESOLUTION_M)
        front, ice = predict_scene(channels, network=network, trace=trace)
        traced = trace_fronts(front, ice, settings=trace)
    except SceneError as error:
        traced = Trace((), error.reason, error.message)
    state = "front" if traced.fronts else "no_front" if traced.reason not in FAILURES else "failed"
    about = {"image": str(path), "front": -1, "state": state, "reason": traced.reason, "detail": traced.detail}
    features: list[Feature] = [
        {"properties": about | {"front": n, "confidence": f.confidence}, "geometry": mapping(LineString(f.line))}
        for n, f in enumerate(traced.fronts)
    ] or [{"properties": about | {"confidence": None}, "geometry": None}]
    return [{"type": "Feature", **feature} for feature in features]


def write_image_fronts(features: Sequence[Feature], path: Path) -> None:
    """Write the features of plain images as GeoJSON."""
    text = json.dumps({"type": "FeatureCollection", "features": list(features)}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def write_store_report(store: str, scenes: pd.DataFrame) -> str:
    """Write `report.html` and `contact_sheet.png` into the store; return the path of the report.

    `scenes` is the table of `summarise_scenes`; the pictures and what made the store are read from it.
    """
    shown = scenes.head(MAX_PICTURES)
    found = {
        (domain, scene): picture
        for domain, scene in zip(shown["domain"], shown["scene_id"], strict=True)
        if (picture := read_picture(store, domain, scene)) is not None
    }
    if found:
        write_document(store, "contact_sheet.png", contact_sheet([(" ".join(key), png) for key, png in found.items()]))
    html = report_html(
        scenes,
        {front_key(*key): png for key, png in found.items()},
        title=f"Calving fronts: {', '.join(scenes['domain'].unique()[:5])}",
        provenance=read_store(store),
    )
    return write_document(store, "report.html", html.encode())


def summarise_scenes(fronts: gpd.GeoDataFrame, distances: pd.DataFrame | None = None) -> pd.DataFrame:
    """Make the table for people, a row a scene: date, state, reason, fronts, length in m, distances to a reference.

    `distances` is what `evaluation.compare_fronts` returns: `key`, `reference_date`, `distance_m`. Where a scene lies
    between two references, those of each year have a column.
    """
    by_key = fronts.groupby("key", sort=False)
    scenes = by_key[["domain", "scene_id", "datetime", "platform", "state", "reason"]].first()
    scenes["n_fronts"] = by_key["front"].max() + 1
    scenes["length_m"] = by_key["length_m"].sum(min_count=1).round()
    scenes["confidence"] = by_key["confidence"].max().round(2)
    scenes["datetime"] = scenes["datetime"].dt.strftime("%Y-%m-%d")
    if distances is not None and not distances.empty:
        scenes = scenes.join(_distance_columns(distances))
    table: pd.DataFrame = scenes.reset_index(drop=True)
    return table


def _distance_columns(distances: pd.DataFrame) -> pd.DataFrame | pd.Series:
    """Distances by key: one column, or one for each year of the references where scenes have several."""
    years = distances["reference_date"].str[:4]
    if not distances["key"].duplicated().any() or years.nunique() > MOST_YEARS:
        return distances.groupby("key")["distance_m"].min().round(1)
    by_year = distances.assign(year=years).pivot_table(index="key", columns="year", values="distance_m")
    return by_year.round(1).add_prefix("m_to_")


def _plan(
    domains: Iterable[Domain], find_scenes: FindScenes, store: str, batch_size: int, counts: Counter[str]
) -> Iterator[Batch]:
    """Search domain by domain, skip what the ledger has, cut the rest into batches; a resumed run cuts alike."""
    done = finished_keys(store)
    for domain in domains:
        items = find_scenes(domain)
        todo = [item for item in items if front_key(domain.name, item.id) not in done]
        counts.update(found=len(items), known=len(items) - len(todo))
        if not todo:
            continue
        places = add_scenes(store, domain, {item.id: np.datetime64(_utc(item).tz_localize(None)) for item in todo})
        for start in range(0, len(todo), batch_size):
            part = todo[start : start + batch_size]
            yield Batch(domain, part, [places[item.id] for item in part])


def _windowed(
    run: Callable[[Batch], gpd.GeoDataFrame], batches: Iterable[Batch], *, alive: int
) -> Iterator[gpd.GeoDataFrame]:
    """Run batches, at most `alive` at a time, and yield their fronts in order."""
    running: deque[Future[gpd.GeoDataFrame]] = deque()
    with ThreadPoolExecutor(alive) as pool:
        for batch in batches:
            running.append(pool.submit(run, batch))
            if len(running) > alive:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _map_batch(batch: Batch, *, store: str, settings: MapSettings, client: Client | None) -> gpd.GeoDataFrame:
    """Map one batch and write its fronts: its rows appear in the store all at once."""
    results = _map_here(batch, store, settings) if client is None else _map_on(client, batch, store, settings)
    rows = [row for item, result in zip(batch.items, results, strict=True) for row in _rows(batch.domain, item, result)]
    facts = {
        "domain": batch.domain.name,
        "glacier_id": batch.domain.glacier_id,
        "resolution_m": batch.domain.resolution_m,
        "model": network_id(settings.network),
        "code": version("calfin-cloud"),
    }
    table = gpd.GeoDataFrame([row | facts for row in rows], geometry="geometry", crs=batch.domain.crs)
    table = table[[*FRONT_SCHEMA.names, "geometry"]]
    write_fronts(store, table)
    return table


def _map_here(batch: Batch, store: str, settings: MapSettings) -> list[Result]:
    """Map the scenes one after the other in this process, without a Dask cluster."""
    domain = batch.domain
    results: list[Result] = []
    for item, place in zip(batch.items, batch.places, strict=True):
        try:
            scene = stack_scenes([item], domain).data[0].compute(scheduler="synchronous")
            fractions = scene_fractions(scene, resolution_m=domain.resolution_m, slc_off_possible=_is_slc_off(item))
            facts = fractions | _verdict(fractions, settings)
            if "reason" not in facts:
                channels = prepare_scene(scene, domain.resolution_m)
                masks = predict_scene(channels, fjord_mask=domain.fjord_mask, **_how(settings))
                facts |= _store_and_trace(masks, channels, Target(store, domain, place, item.id), settings)
            results.append(facts)
        except Exception as error:
            results.append(error)
    return results


def _map_on(client: Client, batch: Batch, store: str, settings: MapSettings) -> list[Result]:
    """Map the scenes on a cluster: any worker reads, workers that say GPU predict (all, if none does), the rest trace.

    The channels are persisted before the masks, because only then the resource restriction reaches all network tasks
    and no others (dask#7036).
    """
    scenes = stack_scenes(batch.items, batch.domain)
    looks = [
        delayed(scene_fractions)(block[0], resolution_m=batch.domain.resolution_m, slc_off_possible=_is_slc_off(item))
        for block, item in zip(_blocks(scenes), batch.items, strict=True)
    ]
    channels, *looks = client.persist([prepare_scenes(scenes), *looks])
    results: list[Result] = [
        r if isinstance(r, Exception) else r | _verdict(r, settings) for r in _gather(client, looks)
    ]
    use = [i for i, r in enumerate(results) if not isinstance(r, Exception) and "reason" not in r]
    if not use:
        return results
    channels = channels.isel(time=use)
    masks = predict_masks(channels, batch.domain, **_how(settings))
    masks = client.persist(masks, resources=_gpu(client))
    traces = [
        delayed(_store_and_trace)(m[0], c[0], Target(store, batch.domain, batch.places[i], batch.items[i].id), settings)
        for i, m, c in zip(use, _blocks(masks), _blocks(channels), strict=True)
    ]
    for i, traced in zip(use, _gather(client, traces), strict=True):
        facts = results[i]
        results[i] = traced if isinstance(traced, Exception) or isinstance(facts, Exception) else facts | traced
    return results


def _how(settings: MapSettings) -> dict[str, Any]:
    """Pick what the network's step takes of the settings."""
    return {"network": settings.network, "settings": settings.inference, "trace": settings.trace}


def _store_and_trace(
    masks: NDArray[np.float32], channels: NDArray[np.uint8], target: Target, settings: MapSettings
) -> dict[str, Any]:
    """Write the masks of a scene, trace its fronts from what is stored, draw its picture; return reason and fronts."""
    store, domain, place, scene_id = target
    write_masks(store, domain.name, place, masks)
    front, ice = read_scene_masks(store, domain.name, place)
    trace = trace_fronts(front, ice, fjord_mask=domain.fjord_mask, valid=~np.isnan(front), settings=settings.trace)
    lines = [georeference(f.line, domain.grid.transform) for f in trace.fronts]
    write_picture(store, domain.name, scene_id, scene_png(channels[..., 0], [f.line for f in trace.fronts]))
    return {
        "reason": trace.reason,
        "detail": trace.detail,
        "fronts": [(line, f.confidence, f.isolation) for line, f in zip(lines, trace.fronts, strict=True)],
    }


def _rows(domain: Domain, item: pystac.Item, result: Result) -> list[dict[str, Any]]:
    """Rows of one scene for the fronts table: one a front, or one that says why there is none."""
    row: dict[str, Any] = {
        "key": front_key(domain.name, item.id),
        "scene_id": item.id,
        "front": -1,
        "datetime": _utc(item),
        "platform": str(item.properties.get("platform") or "unknown"),
        "collection": item.collection_id or "",
        "quality_flag": 13 if _is_slc_off(item) else 10,
        "length_m": np.nan,
        "confidence": np.nan,
        "isolation": "",
        "geometry": None,
    } | dict.fromkeys(("cloud_fraction", "nodata_fraction", "slc_off_fraction"), np.nan)
    if isinstance(result, Exception):
        reason, detail = _reason_of(result)
        return [row | {"state": "failed" if reason in FAILURES else "no_front", "reason": reason, "detail": detail}]
    result = dict(result)
    fronts: list[tuple[LineString, float, str]] = result.pop("fronts", [])
    row |= result
    if not fronts:
        return [row | {"state": "no_front"}]
    found = [
        {"front": n, "length_m": line.length, "confidence": confidence, "isolation": isolation, "geometry": line}
        for n, (line, confidence, isolation) in enumerate(fronts)
    ]
    return [row | {"state": "front"} | front for front in found]


def _verdict(facts: Mapping[str, float], settings: MapSettings) -> dict[str, str]:
    """Reason and detail why a scene is not worth the network; empty if it is."""
    for reason, fraction, limit in (
        ("nodata", facts["nodata_fraction"], settings.max_nodata),
        ("cloudy", facts["cloud_fraction"], settings.max_cloud),
    ):
        if fraction > limit:  # an unknown cloud fraction is NaN and passes
            return {"reason": reason, "detail": f"{fraction:.0%} of the domain, at most {limit:.0%} is accepted"}
    return {}


def _reason_of(error: Exception) -> tuple[str, str]:
    """Reason code and message of a scene's error, without the line breaks and length of a traceback."""
    if isinstance(error, KilledWorker):
        return "worker_lost", "the worker died with the scene several times: it may need more memory"
    reason = error.reason if isinstance(error, SceneError) else "error"
    text = str(error) if isinstance(error, SceneError) else f"{type(error).__name__}: {error}"
    return reason, " ".join(text.split())[:500]


def _gather(client: Client, tasks: Sequence[Any]) -> list[Any]:
    """Results of tasks, or the exception of each that failed: one broken scene does not disturb the others."""
    futures = client.compute(list(tasks))
    errors = [future.exception() for future in futures]  # waits for each
    values = iter(client.gather([f for f, error in zip(futures, errors, strict=True) if error is None]))
    return [next(values) if error is None else error for error in errors]


def _gpu(client: Client) -> Mapping[str, int] | None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in w["resources"] for w in workers) else None


def _blocks(array: Any) -> list[Any]:  # noqa: ANN401 - xarray.DataArray or its dask array
    """List the delayed chunk of every scene, each of length one along time."""
    return list(array.data.to_delayed().ravel())


def _is_slc_off(item: pystac.Item) -> bool:
    return may_be_slc_off(str(item.properties.get("platform") or ""), _utc(item))


def _utc(item: pystac.Item) -> pd.Timestamp:
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        raise ValueError(f"item {item.id} has neither datetime nor start_datetime")
    stamp = pd.Timestamp(when)
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
