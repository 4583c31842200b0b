"""What has become of every scene that searches have found."""

from __future__ import annotations

from collections import Counter
from typing import Any

from calfin_cloud.schema import STATES, front_key
from calfin_cloud.storage.files import read_each
from calfin_cloud.storage.leases import lease_holder
from calfin_cloud.storage.merging import shard_places
from calfin_cloud.storage.places import read_places
from calfin_cloud.storage.stores import kept_domains, read_store, told_lost, unfinished_change
from calfin_cloud.storage.tables import read_states


def count_scenes(store: str) -> dict[str, Any]:
    """Count the scenes of a store, in JSON values.

    `found` is what searches have listed, apart from the tables: every scene has got its place in the masks before it
    was mapped. (A run lists some hundred scenes at a time: one that was stopped may not have come to the last.)
    `states` and `reasons` count the scenes of the tables, `pending` those listed and not there, such as the rest of a
    run that was stopped, `behind` those whose rows an earlier recipe made, since they could not be mapped again when
    it changed. `wrong` says in words what does not add up, empty if found = front + no_front + failed +
    pending. `unfinished` is the mark of a change that was stopped (`verb, by, since`), `written_by` says who writes
    now, and from when on the store is free if that run was killed.
    """
    made_by = read_store(store)
    scenes = read_states(store)  # before the list, which grows first
    done = set(scenes["key"])
    kept = kept_domains(store)
    names = sorted(kept | {key.partition("/")[0] for key in done})
    places = read_each(lambda name: read_places(store, name), names)
    found = {front_key(name, scene_id) for name, listed in zip(names, places, strict=True) for scene_id in listed}
    states = Counter({state: 0 for state in STATES}) + Counter(scenes["state"])
    pairs = Counter(zip(scenes["state"], scenes["reason"], strict=True))
    wrong = [_told_lost(name, store) for name in names if name not in kept]
    wrong += [
        f"{key} is in the tables of two batches: keep one of them in fronts/"
        for key in sorted(scenes["key"][scenes["key"].duplicated()])
    ] + [f"{key} has a state, but no search has listed it: its masks are lost" for key in sorted(done - found)]
    holder = lease_holder(store)
    return {
        "found": len(found),
        "states": {state: states[state] for state in STATES},
        "pending": len(found - done),
        "behind": int(scenes["behind"].sum()),
        "reasons": [{"state": state, "reason": reason, "scenes": n} for (state, reason), n in sorted(pairs.items())],
        "wrong": wrong,
        "unfinished": unfinished_change(made_by),
        "written_by": holder and {name: holder.get(name) for name in ("verb", "host", "process", "since", "free_from")},
    }


def _told_lost(name: str, store: str) -> str:
    """Say that the file of a domain is gone or, where a shard has it, yet to come: a merger writes it last."""
    if any(name in kept_domains(shard) for shard in shard_places(store)):
        return (
            f"{store} has only a part of {name}, which a shard of it has: run `calfin merge {store}` again to the end"
        )
    return told_lost(name, store)
