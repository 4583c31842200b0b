"""Many small files of batches become few large ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import geopandas as gpd
import pandas as pd

from calfin_cloud.storage.batches import Stored, read_items
from calfin_cloud.storage.commits import retire_files, tidy, write_batch
from calfin_cloud.storage.files import delete_files, open_place, read_each
from calfin_cloud.storage.leases import hold_lease
from calfin_cloud.storage.stores import check_finished, read_store
from calfin_cloud.storage.tables import Tables, read_batch_features, read_tables

SCENES_A_FILE = 4096


def compact_store(store: str, *, scenes_a_file: int = SCENES_A_FILE) -> tuple[int, int]:
    """Merge the files of batches of each domain; return the number of fronts files before and after.

    Files are merged until one has `scenes_a_file` scenes or more. Readers see the small files or the large one, never
    both or neither: the header of the large one names those that it replaces, which are deleted afterwards. Rows stay
    as they are, scenes are sorted by time.

    Raises
    ------
    ValueError
        There is no store, or a change of it was stopped half way.
    """
    read_store(store)  # before the lease, which would make its folder
    with hold_lease(store, "compact") as check:
        check_finished(store)
        batches = tidy(store)
        groups = _groups(batches, scenes_a_file)
        for group in groups:
            _merge(store, group, check)
    return len(batches), len(batches) - sum(len(group) - 1 for group in groups)


def _groups(batches: Sequence[Stored], scenes_a_file: int) -> list[list[Stored]]:
    """Cut the files that are not yet large into groups of one domain and one recipe that become large ones."""
    groups: list[list[Stored]] = []
    small = [stored for stored in batches if len(stored.items) < scenes_a_file]
    by_kind = sorted(small, key=lambda stored: (stored.domain, sorted(stored.recipe.items()), stored.name))
    for _, alike in groupby(by_kind, key=lambda stored: (stored.domain, sorted(stored.recipe.items()))):
        group: list[Stored] = []
        for stored in alike:
            group.append(stored)
            if sum(len(s.items) for s in group) >= scenes_a_file:
                groups.append(group)
                group = []
        groups.append(group)
    return [group for group in groups if len(group) > 1]


def _merge(store: str, group: Sequence[Stored], check: Callable[[], None]) -> None:
    """Write the batches of a group as one, then delete them; those of one recipe have the same features."""
    tables = Tables(*map(_joined, zip(*read_each(partial(read_tables, store), group), strict=True)))
    items = {k: v for part in read_each(partial(read_items, store), group) for k, v in part.items()}
    parts = read_each(partial(read_batch_features, store), group)
    features = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    check()
    replaces = [stored.name for stored in group]
    behind = [key for stored in group for key in stored.behind]
    write_batch(store, tables, items, recipe=group[0].recipe, replaces=replaces, features=features, behind=behind)
    fs, root = open_place(store)
    delete_files(fs, [f"{root}/fronts/{name}" for name in replaces])
    retire_files(fs, root, [f"{folder}/{name}" for stored in group for folder, name in stored.files.items()])


def _joined(tables: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    full = [table for table in tables if len(table)] or list(tables[:1])
    return pd.concat(full, ignore_index=True).sort_values(["datetime", "scene_id"], ignore_index=True)
