"""From a search to the tables of a store, batch by batch, on a cluster or without one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import geopandas as gpd
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.object_stores import store_text
from calfin_cloud.pipeline.batches import Batch, cut_batches, unknown_scenes
from calfin_cloud.pipeline.jobs import OnBatch, tables_of_batches
from calfin_cloud.pipeline.ordering import in_order
from calfin_cloud.pipeline.runners import waves
from calfin_cloud.pipeline.settings import MapSettings, calibration_of, made_by, recipe_of
from calfin_cloud.pipeline.workers import check_network, check_store_in_reach, scenes_in_reach
from calfin_cloud.scenes import FindScenes
from calfin_cloud.storage import (
    check_domains,
    check_grid,
    check_made_alike,
    hold_lease,
    is_store,
    keep_domain,
    kept_domains,
    open_store,
    read_places,
    renamed_domains,
    tidy,
    write_batch,
)

log = logging.getLogger(__name__)


def map_fronts(
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    store: str | Path,
    *,
    settings: MapSettings | None = None,
    client: Client | None = None,
    batch_size: int = 32,
    on_batch: OnBatch | None = None,
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
    settings
        What decides the fronts; `MapSettings()` where not given.
    client
        A Dask client; without one, scenes are mapped one after the other in this process, and read ahead.
    batch_size
        Scenes that are written together; a killed run repeats at most the batches that were under way.
    on_batch
        Called with the fronts of each batch once it is written.

    Returns
    -------
    Counter
        `found`, `known` (in the store before), and the new scenes by state: found = known + front + no_front + failed;
        `changed`: known ones whose item has changed since, which `recompute_changed` maps again.

    Raises
    ------
    TypeError
        For a domain that is not in a list, scenes in place of what finds them, or a store that is no address.
    ValueError
        For domains of several CRSs, a `batch_size` below 1, a network that cannot be loaded, a store that was made
        differently or has other domains of these names, or files of this machine that the workers do not see.
    StoreInUseError
        Where another run writes to the store.

    Examples
    --------
    >>> from functools import partial
    >>> domains = cc.read_domains("real/domains.geojson")
    >>> find = partial(cc.stream_scenes, "real/catalog.json", period="2021")
    >>> counts = cc.map_fronts(domains, find, "fronts")  # mapped before: a second run leaves them alone
    >>> counts["found"], counts["known"], counts["failed"]
    (1, 1, 0)
    """
    _check_call(domains, find_scenes, batch_size)
    domains, store = list(domains), store_text(store)  # a generator would be used up by the first look at it
    settings = settings or MapSettings()
    crs = one_crs(domains)
    check_store_in_reach(store, client)
    check_network(settings, client)  # a wrong one ends the run here, not scene by scene
    counts: Counter[str] = Counter(found=0, known=0, front=0, no_front=0, failed=0)
    with hold_lease(store, "map") as check:
        open_store(store, crs=crs, made_by=made_by(settings))
        batches = _plan(domains, partial(scenes_in_reach, find_scenes, client), store, batch_size, counts, check)
        recipe = lru_cache(maxsize=4)(partial(recipe_of, settings=settings))  # 30 ms, the same for all of a domain
        run = partial(_map_wave, store=store, settings=settings, client=client, recipe=recipe, check=check)
        for fronts in (f for of_wave in in_order(run, waves(batches, client), client) for f in of_wave):
            counts.update(fronts.drop_duplicates("key")["state"].tolist())
            log.info("%s: %d scenes, so far %s", fronts["domain"].iloc[0], fronts["key"].nunique(), dict(counts))
            if on_batch:
                on_batch(fronts)
    return counts


def _check_call(domains: object, find_scenes: object, batch_size: float) -> None:
    if isinstance(domains, Domain | str | Path) or not callable(find_scenes):
        got = f"{type(domains).__name__} and {type(find_scenes).__name__}"
        raise TypeError(
            f"map_fronts takes a list of domains and a function that finds their scenes, got {got}: give [domain] and "
            'partial(stream_scenes, catalog, period="2019")'
        )
    if not (batch_size >= 1 and batch_size == int(batch_size)):
        raise ValueError(f"batch_size is a whole number of scenes from 1 on, got {batch_size}")


def check_wanted(domains: Sequence[Domain], settings: MapSettings, store: str | None = None) -> None:
    """Refuse what a run would refuse, without workers and before anything is written.

    Raises
    ------
    ValueError
        For domains of several CRSs, a network that is not there, a calibration of another one, or a store that was
        made differently or has other domains of these names.
    """
    crs, made = one_crs(domains), made_by(settings)
    calibration_of(settings.network)
    if store is not None and is_store(store):
        check_made_alike(store, crs=crs, made_by=made)
        check_domains(store, domains)
        for new, old in renamed_domains(store, domains).items():
            log.warning(
                "domain %s has the box of %s in the store: its scenes are mapped again, and both stay; "
                "to go on with %s give it that name",
                *(new, old, old),
            )


def one_crs(domains: Sequence[Domain]) -> str:
    """CRS of domains that are to share a store.

    Raises
    ------
    ValueError
        They have several, or there is no domain.
    """
    crs = {domain.crs for domain in domains}
    if not crs:
        raise ValueError("got no domain: a store needs at least one")
    if len(crs) != 1:
        raise ValueError(
            f"the domains of a store must share one CRS, got {sorted(crs)}: map each CRS into its own store"
        )
    return crs.pop()


def _plan(
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    store: str,
    batch_size: int,
    counts: Counter[str],
    check: Callable[[], None],
) -> Iterator[Batch]:
    """Search domain by domain, skip what the ledger has, cut the rest into batches; a resumed run cuts alike."""
    check_domains(store, domains)  # also those without a new scene: whoever has changed one waits for its effect
    batches = tidy(store)
    done = {key: item for stored in batches for key, item in stored.items.items()}
    done |= dict.fromkeys((key for stored in batches for key in stored.behind), "")  # they count as changed
    kept, mapped = kept_domains(store), {stored.domain for stored in batches}
    for domain in domains:
        if domain.name not in kept and (domain.name in mapped or read_places(store, domain.name)):  # its file was lost
            check_grid(store, domain)
            check()
            keep_domain(store, domain)
        todo = unknown_scenes(domain, find_scenes(domain), done, counts)
        yield from cut_batches(domain, todo, store, batch_size, check)


def _map_wave(
    batches: Sequence[Batch],
    *,
    store: str,
    settings: MapSettings,
    client: Client | None,
    recipe: Callable[[Domain], dict[str, str]],
    check: Callable[[], None],
) -> list[gpd.GeoDataFrame]:
    """Map batches and write their tables: the scenes of each appear in the store all at once."""
    written = []
    made = tables_of_batches(batches, store, settings, client, check)
    for batch, (tables, features) in zip(batches, made, strict=True):
        check()
        write_batch(store, tables, batch.items, recipe=recipe(batch.domain), features=features)
        written.append(tables.fronts)
    return written
