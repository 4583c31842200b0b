"""Where a front is from: its scene, the file that was read, the network, the settings, and what people said of it."""

from __future__ import annotations

from typing import Any

import pystac

from calfin_cloud.exports import json_value
from calfin_cloud.results.reviewing import REVIEW_COLUMNS, reviewed_fronts
from calfin_cloud.results.seaward import features_of, told_features
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import CATALOG_FIELD, band_of, granules_of
from calfin_cloud.storage import Stored, read_batches, read_items, read_store, unsigned_item

UNKNOWN = "unknown"
EARLIER = (
    "unknown, since the scene could not be mapped again with those of the store: `calfin map --recompute` tries it"
)
SHOWN = (
    *("state", "reason", "detail", "datetime", "platform", "collection", "quality_flag"),
    *("cloud_fraction", "nodata_fraction", "slc_off_fraction", "resolution_m"),
)
SHOWN_FRONT = ("front", "length_m", "confidence", "sigma_m", "half95_m", "score", "score_reasons", "isolation")
SHOWN_LATER = ("choice", "choice_why", "flags", "flag_details", *REVIEW_COLUMNS)


def lineage_of(store: str, scene: str) -> dict[str, Any]:
    """Tell where the fronts of one scene are from, as JSON values.

    Parameters
    ----------
    scene
        Key (`domain/scene_id`) or scene id, where only one domain of the store has it.

    Returns
    -------
    dict
        What is known of the scene; `fronts`, each with its measures, the doubts of `calfin timeseries` and the verdict
        of a person; `features` of the sea, where the store has any; `read`: the STAC item, its catalogue, and of the
        files that were read for the front the address (unsigned) and the checksum and size that the item gives, else
        `unknown`, since nothing else was asked of the server;
        `made_by`: network with its sha256 and the engine that ran it, code version and settings, which are not known of
        a scene that could not be mapped again when they were changed.

    Raises
    ------
    ValueError
        The store has no such scene, or several domains have it.
    """
    fronts = reviewed_fronts(store)
    mine = fronts[(fronts["key"] == scene) | (fronts["scene_id"] == scene)]
    keys = list(mine["key"].unique())
    if len(keys) != 1:
        trouble = (
            f"{len(keys)} domains have it: {keys[:5]}; give DOMAIN/SCENE"
            if keys
            else "the store has no such scene; its ids are the column scene_id of `scenes.csv` in a report"
        )
        raise ValueError(f"{scene}: {trouble}")
    first = mine.iloc[0]
    found = mine[mine["state"] == "front"]
    batch = _batch_of(store, keys[0])
    is_behind = batch is not None and keys[0] in batch.behind
    code, _, engine = first["code"].partition(" ")
    return {
        "key": keys[0],
        **{name: json_value(first[name]) for name in SHOWN},
        "fronts": [{n: json_value(row[n]) for n in (*SHOWN_FRONT, *SHOWN_LATER)} for _, row in found.iterrows()],
        **({"features": told} if (told := told_features(features_of(store), keys[0])) else {}),
        "read": _read_from(stored_item(store, keys[0])),
        "made_by": {
            "model": first["model"],
            "engine": engine or "keras",
            "code": code,
            "settings": EARLIER if is_behind else read_store(store).get("settings"),
        },
    }


def stored_item(store: str, key: str) -> dict[str, Any] | None:
    """Read the STAC item of a scene by its key, JSON values; None where the store has none."""
    stored = _batch_of(store, key)
    return read_items(store, stored).get(key) if stored else None


def _batch_of(store: str, key: str) -> Stored | None:
    return next((stored for stored in read_batches(store) if key in stored.items), None)


def _read_from(content: dict[str, Any] | None) -> dict[str, Any]:
    """Item, catalogue and files of a scene."""
    if content is None:
        return {"item": None}
    item = pystac.Item.from_dict(unsigned_item(content), preserve_dict=True)
    told = {"item": item.id, "collection": item.collection_id, "catalog": item.extra_fields.get(CATALOG_FIELD)}
    try:
        band = band_of(item)
    except SceneError as error:
        return told | {"files": [], "trouble": str(error)}
    keys = [key for key in (band.asset, band.quality_asset) if key]
    granules = (item, *granules_of(item))
    return told | {"files": [_file(key, granule.assets[key]) for granule in granules for key in keys]}


def _file(key: str, asset: pystac.Asset) -> dict[str, Any]:
    given = asset.extra_fields
    checksum = given.get("file:checksum") or given.get("checksum:multihash") or UNKNOWN
    return {"asset": key, "address": asset.href, "checksum": checksum, "size": given.get("file:size", UNKNOWN)}
