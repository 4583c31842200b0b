"""Masks go to Zarr; fronts, rejected candidates and polygons to GeoParquet: below any fsspec URI, idempotent by key.

A store is a folder or object prefix: `store.json` (what made it), `domains/<domain>.geojson`, `masks/<domain>` (a Zarr
group, a scene a chunk, some scenes a shard), `fronts/<batch>.parquet` (at least a row a scene: the ledger), and of the
same scenes `rejected/<batch>-<digest>.parquet`, `polygons/<batch>-<digest>.parquet`, `items/<batch>-<digest>.json.gz`,
and `pictures/<domain>/<scene>.png`; where features of the sea are wanted, `icebergs/`, `melange/` and `plumes/` like
`polygons/`, and `bands/<domain>/<scene>.tif`; of what came later `reviews/<digest>.json` (verdicts of people),
`flags/<domain>.json` (doubts in time) and `choices/<domain>.json` (fronts that all dates together support);
`tries.json` (failed scenes that were tried again); `shards/` (stores of shards, see `merge_stores`); `replaced/` (files
of batches that were replaced less than a day ago, domains as they were before the last change of all); while a run
writes, `lease-*`.
"""

from calfin_cloud.storage.bands import KeptBands, read_bands, write_bands
from calfin_cloud.storage.batches import Stored, finished_keys, read_batches, read_items
from calfin_cloud.storage.beside import (
    checked_domains,
    instant,
    read_choices,
    read_flags,
    read_reviews,
    write_choices,
    write_flags,
    write_review,
)
from calfin_cloud.storage.changes import before_change, begin_change, check_room, end_change
from calfin_cloud.storage.commits import tidy, write_batch
from calfin_cloud.storage.compaction import compact_store
from calfin_cloud.storage.files import DamagedFileError, digest
from calfin_cloud.storage.items import item_digest, unsigned, unsigned_item
from calfin_cloud.storage.leases import LeaseLostError, StoreInUseError, hold_lease, lease_holder, told_holder
from calfin_cloud.storage.ledger import count_scenes
from calfin_cloud.storage.masks import (
    NOTHING,
    EncodedScene,
    encode_scene,
    picture_reader,
    read_candidates,
    read_masks,
    read_scene_grey,
    read_scene_masks,
    write_scenes,
)
from calfin_cloud.storage.merging import merge_stores, of_shard, shard_places
from calfin_cloud.storage.places import EDGES, add_scenes, check_grid, check_places, masks_url, read_places
from calfin_cloud.storage.silence import SilentStoreError, check_answered, unless_silent
from calfin_cloud.storage.stores import (
    check_domains,
    check_finished,
    check_made_alike,
    domain_of,
    is_store,
    keep_domain,
    kept_domains,
    open_store,
    outside_stores,
    picture_path,
    read_picture,
    read_settings,
    read_store,
    read_store_domains,
    renamed_domains,
    told_change,
    unfinished_change,
    write_picture,
)
from calfin_cloud.storage.tables import (
    Tables,
    failed_keys,
    read_all_tables,
    read_batch_features,
    read_features,
    read_fronts,
    read_polygons,
    read_rejected,
    read_states,
    read_tables,
)
from calfin_cloud.storage.tries import due_keys, note_tries

__all__ = [
    "EDGES",
    "NOTHING",
    "DamagedFileError",
    "EncodedScene",
    "KeptBands",
    "LeaseLostError",
    "SilentStoreError",
    "StoreInUseError",
    "Stored",
    "Tables",
    "add_scenes",
    "before_change",
    "begin_change",
    "check_answered",
    "check_domains",
    "check_finished",
    "check_grid",
    "check_made_alike",
    "check_places",
    "check_room",
    "checked_domains",
    "compact_store",
    "count_scenes",
    "digest",
    "domain_of",
    "due_keys",
    "encode_scene",
    "end_change",
    "failed_keys",
    "finished_keys",
    "hold_lease",
    "instant",
    "is_store",
    "item_digest",
    "keep_domain",
    "kept_domains",
    "lease_holder",
    "masks_url",
    "merge_stores",
    "note_tries",
    "of_shard",
    "open_store",
    "outside_stores",
    "picture_path",
    "picture_reader",
    "read_all_tables",
    "read_bands",
    "read_batch_features",
    "read_batches",
    "read_candidates",
    "read_choices",
    "read_features",
    "read_flags",
    "read_fronts",
    "read_items",
    "read_masks",
    "read_picture",
    "read_places",
    "read_polygons",
    "read_rejected",
    "read_reviews",
    "read_scene_grey",
    "read_scene_masks",
    "read_settings",
    "read_states",
    "read_store",
    "read_store_domains",
    "read_tables",
    "renamed_domains",
    "shard_places",
    "tidy",
    "told_change",
    "told_holder",
    "unfinished_change",
    "unless_silent",
    "unsigned",
    "unsigned_item",
    "write_bands",
    "write_batch",
    "write_choices",
    "write_flags",
    "write_picture",
    "write_review",
    "write_scenes",
]
