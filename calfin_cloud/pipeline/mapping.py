"""From a search to the tables of a store, batch by batch, on a cluster or without one."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import lru_cache, partial

import geopandas as gpd
import numpy as np
import pystac
from distributed import Client
from distributed.threadpoolexecutor import ThreadPoolExecutor  # whose threads do not keep a process from ending
from numpy.typing import NDArray

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import Loader, stack_scenes
from calfin_cloud.inference import predict_scene, tracing_mask
from calfin_cloud.pipeline.batches import Batch, FindScenes, cut_batches, unknown_scenes, windowed
from calfin_cloud.pipeline.recipes import made_by, recipe_of
from calfin_cloud.pipeline.scene import Facts, Result, Target, finish_scene, look_at_scene
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import is_slc_off, scene_rows, tables_of, utc
from calfin_cloud.pipeline.workers import check_network, map_on
from calfin_cloud.sensors import kind_of
from calfin_cloud.storage import Tables, hold_lease, open_store, tidy, write_batch

log = logging.getLogger(__name__)

SCENES_AHEAD = 4  # read while one is mapped: of a scene's time on a distant server, most is waiting


def map_fronts(
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    store: str,
    *,
    settings: MapSettings | None = None,
    client: Client | None = None,
    batch_size: int = 32,
    loader: Loader = "stackstac",
    on_batch: Callable[[gpd.GeoDataFrame], None] | None = None,
) -> Counter[str]:
    """Map the calving fronts of all scenes of the domains into a store and count the states they ended in.

    Scenes that the store has already are left alone, so an interrupted run resumes and a second run writes nothing.

    Parameters
    ----------
    domains
        All in one CRS, which becomes that of the fronts table.
    find_scenes
        Items of a domain, sorted by time and id, each id once, in a list or one by one, e.g.
        ``partial(stream_scenes, catalog, period="2019/2021")``.
    store
        fsspec URI: a folder or an object prefix.
    client
        A Dask client; without one, scenes are mapped one after the other in this process, and read ahead.
    batch_size
        Scenes that are written together; a killed run repeats at most the batches that were under way.
    loader
        What stacks the scenes, `stackstac` or `odc-stac`; the fronts are the same.

    Returns
    -------
    Counter
        `found`, `known` (in the store before), and the new scenes by state: found = known + front + no_front + failed;
        `changed`: known ones whose item has changed since, which `recompute_changed` maps again.
    """
    settings = settings or MapSettings()
    crs = {d.crs for d in domains}
    if len(crs) != 1:
        raise ValueError(
            f"the domains of a store must share one CRS, got {sorted(crs)}: map each CRS into its own store"
        )
    check_network(settings, client)  # a wrong one ends the run here, not scene by scene
    counts: Counter[str] = Counter(found=0, known=0, front=0, no_front=0, failed=0)
    with hold_lease(store, "map") as check:
        open_store(store, crs=crs.pop(), made_by=made_by(settings))
        batches = _plan(domains, find_scenes, store, batch_size, counts, check)
        recipe = lru_cache(maxsize=4)(partial(recipe_of, settings=settings))  # 30 ms, the same for all of a domain
        run = partial(
            _map_batch, store=store, settings=settings, client=client, recipe=recipe, check=check, loader=loader
        )
        for fronts in windowed(run, batches, client) if client else map(run, batches):
            counts.update(fronts.drop_duplicates("key")["state"].tolist())
            log.info("%s: %d scenes, so far %s", fronts["domain"].iloc[0], fronts["key"].nunique(), dict(counts))
            if on_batch:
                on_batch(fronts)
    return counts


def _plan(
    domains: Iterable[Domain],
    find_scenes: FindScenes,
    store: str,
    batch_size: int,
    counts: Counter[str],
    check: Callable[[], None],
) -> Iterator[Batch]:
    """Search domain by domain, skip what the ledger has, cut the rest into batches; a resumed run cuts alike."""
    done = {key: item for stored in tidy(store) for key, item in stored.items.items()}
    for domain in domains:
        todo = unknown_scenes(domain, find_scenes(domain), done, counts)
        yield from cut_batches(domain, todo, store, batch_size, check)


def _map_batch(
    batch: Batch,
    *,
    store: str,
    settings: MapSettings,
    client: Client | None,
    recipe: Callable[[Domain], dict[str, str]],
    check: Callable[[], None],
    loader: Loader,
) -> gpd.GeoDataFrame:
    """Map one batch and write its tables: its scenes appear in the store all at once."""
    tables = map_batch(batch, store, settings, client, loader)
    items = {key: item.to_dict(transform_hrefs=False) for key, item in zip(batch.keys, batch.items, strict=True)}
    check()
    write_batch(store, tables, items, recipe=recipe(batch.domain))
    return tables.fronts


def map_batch(
    batch: Batch, store: str, settings: MapSettings, client: Client | None, loader: Loader = "stackstac"
) -> Tables:
    """Map one batch; its masks and pictures are written, its tables are returned."""
    if client is None:
        results = _map_here(batch, store, settings, loader)
    else:
        results = map_on(client, batch, store, settings, loader=loader)
    return tables_of(scene_rows(batch.items, batch.domain, settings), results, batch.domain)


def _map_here(batch: Batch, store: str, settings: MapSettings, loader: Loader) -> list[Result]:
    """Map the scenes one after the other in this process, without a Dask cluster; read some ahead meanwhile."""
    results: list[Result] = []
    scenes = _read_ahead(batch, loader)
    for item, place, scene in zip(batch.items, batch.places, scenes, strict=True):
        try:
            results.append(
                _map_scene(
                    scene.result(), item, Target(store, batch.domain, place, item.id, utc(item).date()), settings
                )
            )
        except Exception as error:
            results.append(error)
    return results


def _read_ahead(batch: Batch, loader: Loader) -> Iterator[Future[NDArray[np.float32]]]:
    """Read the scenes of a batch in threads, some ahead of the one that is asked for."""
    pool = ThreadPoolExecutor(SCENES_AHEAD)
    reading: deque[Future[NDArray[np.float32]]] = deque()
    try:
        for item in batch.items:
            reading.append(pool.submit(_read, item, batch.domain, loader))
            if len(reading) > SCENES_AHEAD:
                yield reading.popleft()
        while reading:
            yield reading.popleft()
    finally:
        pool.shutdown(wait=False)


def _read(item: pystac.Item, domain: Domain, loader: Loader) -> NDArray[np.float32]:
    scene: NDArray[np.float32] = stack_scenes([item], domain, loader=loader).data[0].compute(scheduler="synchronous")
    return scene


def _map_scene(scene: NDArray[np.float32], item: pystac.Item, target: Target, settings: MapSettings) -> Facts:
    domain = target.domain
    look = look_at_scene(
        scene,
        resolution_m=domain.resolution_m,
        slc_off_possible=is_slc_off(item),
        settings=settings,
        kind=kind_of(item),
    )
    if look.channels is None:
        return look.facts
    masks, candidates = predict_scene(
        look.channels,
        network=settings.network,
        fjord_mask=tracing_mask(domain, settings.trace),
        settings=settings.inference,
        trace=settings.trace,
    )
    return finish_scene(masks, candidates, look, target, settings)
