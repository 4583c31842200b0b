"""From a search to the tables of a store, batch by batch, on a cluster or without one."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import xarray as xr
from dask import delayed
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import scene_fractions, stack_scenes
from calfin_cloud.inference import (
    find_candidates,
    predict_masks,
    predict_overviews,
    predict_scene,
    prepare_scene,
    prepare_scenes,
    tracing_mask,
)
from calfin_cloud.network import load_network, network_id
from calfin_cloud.pipeline.scene import Result, Target, store_and_trace
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import Tables, is_slc_off, scene_row, tables_of, utc, verdict, write_tables
from calfin_cloud.schema import front_key
from calfin_cloud.storage import add_scenes, finished_keys, keep_domain, open_store, write_items

log = logging.getLogger(__name__)

BATCHES_ALIVE = 3  # one is read while one is predicted and one is traced; bounds the live tasks
MOST_PIXELS = 8_000_000  # of the scenes of one network task: 100 MB of channels and masks

FindScenes = Callable[[Domain], Sequence[pystac.Item]]


@dataclass(frozen=True)
class Batch:
    """Scenes of one domain that are written together; `places` are theirs on the time axis of the masks."""

    domain: Domain
    items: Sequence[pystac.Item]
    places: Sequence[int]

    @property
    def keys(self) -> list[str]:
        """Keys of the scenes."""
        return [front_key(self.domain.name, item.id) for item in self.items]

    def targets(self, store: str) -> list[Target]:
        """Where the results of each scene go."""
        pairs = zip(self.items, self.places, strict=True)
        return [Target(store, self.domain, place, item.id) for item, place in pairs]


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
        keep_domain(store, domain)
        places = add_scenes(store, domain, {item.id: np.datetime64(utc(item).tz_localize(None)) for item in todo})
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
    """Map one batch and write its tables: its scenes appear in the store all at once."""
    tables = map_batch(batch, store, settings, client)
    write_items(store, [item.to_dict(transform_hrefs=False) for item in batch.items], keys=batch.keys)
    return write_tables(store, tables, batch.keys)


def map_batch(batch: Batch, store: str, settings: MapSettings, client: Client | None) -> Tables:
    """Map one batch; its masks and pictures are written, its tables are returned."""
    results = _map_here(batch, store, settings) if client is None else _map_on(client, batch, store, settings)
    scenes = [scene_row(item, batch.domain, settings) for item in batch.items]
    return tables_of(scenes, results, batch.domain)


def _map_here(batch: Batch, store: str, settings: MapSettings) -> list[Result]:
    """Map the scenes one after the other in this process, without a Dask cluster."""
    domain = batch.domain
    results: list[Result] = []
    for item, target in zip(batch.items, batch.targets(store), strict=True):
        try:
            scene = stack_scenes([item], domain).data[0].compute(scheduler="synchronous")
            fractions = scene_fractions(scene, resolution_m=domain.resolution_m, slc_off_possible=is_slc_off(item))
            facts = fractions | verdict(fractions, settings)
            if "reason" not in facts:
                channels = prepare_scene(scene, domain.resolution_m)
                masks, candidates = predict_scene(
                    channels,
                    network=settings.network,
                    fjord_mask=tracing_mask(domain, settings.trace),
                    settings=settings.inference,
                    trace=settings.trace,
                )
                facts |= store_and_trace(masks, candidates, channels, target, settings)
            results.append(facts)
        except Exception as error:
            results.append(error)
    return results


def _map_on(client: Client, batch: Batch, store: str, settings: MapSettings) -> list[Result]:
    """Map the scenes on a cluster: any worker reads, those that say GPU predict (all, if none does), the rest trace."""
    scenes = stack_scenes(batch.items, batch.domain)
    looks = [
        delayed(scene_fractions)(block[0], resolution_m=batch.domain.resolution_m, slc_off_possible=is_slc_off(item))
        for block, item in zip(_blocks(scenes), batch.items, strict=True)
    ]
    channels, *looks = client.persist([prepare_scenes(scenes), *looks])
    results: list[Result] = [
        r if isinstance(r, Exception) else r | verdict(r, settings) for r in _gather(client, looks)
    ]
    wanted = [i for i, r in enumerate(results) if not isinstance(r, Exception) and "reason" not in r]
    # Scenes share a batch of the network: one that cannot be prepared must not take the others with it.
    prepared = _gather(client, [delayed(np.shape)(_blocks(channels)[i]) for i in wanted])
    for i, shape in zip(wanted, prepared, strict=True):
        if isinstance(shape, Exception):
            results[i] = shape
    use = [i for i in wanted if not isinstance(results[i], Exception)]
    if not use:
        return results
    channels = channels.isel(time=use)
    masks, candidates = predict_on(client, channels, batch.domain, settings)
    targets = batch.targets(store)
    traces = [
        delayed(store_and_trace)(m[0], b[0], c[0], targets[i], settings)
        for i, m, b, c in zip(use, _blocks(masks), _blocks(candidates), _blocks(channels), strict=True)
    ]
    for i, traced in zip(use, _gather(client, traces), strict=True):
        facts = results[i]
        results[i] = traced if isinstance(traced, Exception) or isinstance(facts, Exception) else facts | traced
    return results


def predict_on(
    client: Client, channels: xr.DataArray, domain: Domain, settings: MapSettings
) -> tuple[xr.DataArray, xr.DataArray]:
    """Persist both passes of persisted channels on a cluster: masks and candidates, a scene a chunk.

    Several scenes go through the network together, the windows of the second pass across scenes. What each step needs
    is persisted before it, because only then the resource restriction reaches all network tasks and no others
    (dask#7036).
    """
    gpu, how = _gpu(client), settings.inference
    together = channels.chunk(time=_scenes_together(client, channels.sizes["time"], domain))
    overviews = client.persist(predict_overviews(together, network=settings.network, settings=how), resources=gpu)
    candidates = client.persist(find_candidates(overviews, domain, trace=settings.trace))
    masks = predict_masks(together, overviews, candidates, network=settings.network, settings=how, trace=settings.trace)
    return client.persist(masks.chunk(time=1), resources=gpu), candidates.chunk(time=1)


def _gather(client: Client, tasks: Sequence[Any]) -> list[Any]:
    """Results of tasks, or the exception of each that failed: one broken scene does not disturb the others."""
    futures = client.compute(list(tasks))
    errors = [future.exception() for future in futures]  # waits for each
    values = iter(client.gather([f for f, error in zip(futures, errors, strict=True) if error is None]))
    return [next(values) if error is None else error for error in errors]


def _gpu(client: Client) -> Mapping[str, int] | None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in w["resources"] for w in workers) else None


def _scenes_together(client: Client, n_scenes: int, domain: Domain) -> int:
    """Scenes of one network task: all workers have work, and no task holds more than `MOST_PIXELS`."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    n_workers = sum("GPU" in w["resources"] for w in workers) or len(workers)
    return max(1, min(-(-n_scenes // max(n_workers, 1)), MOST_PIXELS // (domain.shape[0] * domain.shape[1])))


def _blocks(array: Any) -> list[Any]:  # noqa: ANN401 - xarray.DataArray or its dask array
    """List the delayed chunk of every scene, each of length one along time."""
    return list(array.data.to_delayed().ravel())
