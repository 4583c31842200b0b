"""Masks go to Zarr; fronts, rejected candidates and polygons to GeoParquet: below any fsspec URI, idempotent by key.

A store is a folder or object prefix: `store.json` (what made it), `domains/<domain>.geojson`, `masks/<domain>` (a Zarr
group, a scene a chunk), `fronts/<batch>.parquet` (at least a row a scene: the ledger), and of the same scenes
`rejected/<batch>-<digest>.parquet`, `polygons/<batch>-<digest>.parquet`, `items/<batch>-<digest>.json.gz`, and
`pictures/<domain>/<scene>.png`; where features of the sea are wanted, `icebergs/`, `melange/` and `plumes/` like
`polygons/`, and `bands/<domain>/<scene>.tif`; of what came later `reviews/<digest>.json` (verdicts of people) and
`flags/<domain>.json` (doubts in time); `replaced/` (files of batches that were replaced less than a day ago); while a
run writes, `lease-*`.
"""

from calfin_cloud.storage.bands import KeptBands, read_bands, write_bands
from calfin_cloud.storage.commits import tidy, write_batch
from calfin_cloud.storage.compaction import compact_store
from calfin_cloud.storage.files import DamagedFileError, digest
from calfin_cloud.storage.flags import checked_domains, read_flags, write_flags
from calfin_cloud.storage.items import item_digest, unsigned, unsigned_item
from calfin_cloud.storage.leases import LeaseLostError, StoreInUseError, hold_lease, lease_holder
from calfin_cloud.storage.ledger import count_scenes
from calfin_cloud.storage.masks import (
    EDGES,
    NO_BOXES,
    add_scenes,
    clear_masks,
    masks_url,
    read_candidates,
    read_masks,
    read_places,
    read_scene_grey,
    read_scene_masks,
    write_masks,
)
from calfin_cloud.storage.reviews import instant, read_reviews, write_review
from calfin_cloud.storage.stores import (
    begin_change,
    check_finished,
    end_change,
    is_store,
    keep_domain,
    open_store,
    picture_path,
    read_picture,
    read_store,
    read_store_domains,
    write_picture,
)
from calfin_cloud.storage.tables import (
    Stored,
    Tables,
    finished_keys,
    read_all_tables,
    read_batch_features,
    read_batches,
    read_features,
    read_fronts,
    read_items,
    read_polygons,
    read_rejected,
    read_tables,
)

__all__ = [
    "EDGES",
    "NO_BOXES",
    "DamagedFileError",
    "KeptBands",
    "LeaseLostError",
    "StoreInUseError",
    "Stored",
    "Tables",
    "add_scenes",
    "begin_change",
    "check_finished",
    "checked_domains",
    "clear_masks",
    "compact_store",
    "count_scenes",
    "digest",
    "end_change",
    "finished_keys",
    "hold_lease",
    "instant",
    "is_store",
    "item_digest",
    "keep_domain",
    "lease_holder",
    "masks_url",
    "open_store",
    "picture_path",
    "read_all_tables",
    "read_bands",
    "read_batch_features",
    "read_batches",
    "read_candidates",
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
    "read_store",
    "read_store_domains",
    "read_tables",
    "tidy",
    "unsigned",
    "unsigned_item",
    "write_bands",
    "write_batch",
    "write_flags",
    "write_masks",
    "write_picture",
    "write_review",
]
