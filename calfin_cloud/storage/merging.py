"""Domains cut into shards, each with a store, a lease and a cluster of its own; and their stores made one."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack

import fsspec

from calfin_cloud.domains import Domain
from calfin_cloud.storage.batches import SIDES, read_batches
from calfin_cloud.storage.files import delete_files, digest, open_place, read_each, read_steady, write_whole
from calfin_cloud.storage.leases import hold_lease
from calfin_cloud.storage.stores import check_finished, open_store, read_store, read_store_domains
from calfin_cloud.storage.tries import take_tries

OF_A_DOMAIN = ("masks", "pictures", "bands", *SIDES, "reviews", "flags", "choices", "fronts", "domains")
"""Folders whose files are of one domain each, in the order of copying: a front comes when its masks are there."""


def of_shard(domains: Sequence[Domain], store: str, k: int, n: int) -> tuple[list[Domain], str]:
    """Domains of the Kth of N shards, and the address of its store.

    The name of a domain alone decides, so that glaciers that are added move no others.

    Parameters
    ----------
    store
        Into which `calfin merge` makes the shards one.
    k, n
        1 <= k <= n.

    Raises
    ------
    ValueError
        k is not one of 1 to n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"a shard is one of 1 to {n}, got {k}")
    own = [domain for domain in domains if int(digest(domain.name.encode()), 16) % n == k - 1]
    return own, f"{store.rstrip('/')}/shards/{k}-of-{n}"


def shard_places(store: str) -> list[str]:
    """Addresses of the stores that the shards of `calfin map --shard` have made below a store, sorted."""
    fs, root = open_place(store)
    try:
        found = [str(path).rstrip("/") for path in fs.ls(f"{root}/shards", detail=False)]
    except FileNotFoundError:
        return []
    of_shards = sorted(path.rpartition("/")[2] for path in found if fs.exists(f"{path}/store.json"))
    return [f"{store.rstrip('/')}/shards/{name}" for name in of_shards]


def merge_stores(store: str, shards: Sequence[str]) -> list[str]:
    """Copy the stores of shards into one, which is made where it is not there; return the names of the new domains.

    The shards stay. A domain is merged once its file is in `domains`: it is passed over then, and until then a call
    that was stopped is repeated from its beginning, since the shard may have grown since.

    Raises
    ------
    ValueError
        Where the stores were made differently, several shards have a domain, a merged domain lacks scenes of its shard,
        or one that is not merged has scenes that its shard lacks; nothing is changed then.
    """
    if not shards:
        raise ValueError(f"{store} has no shards: `calfin map --shard K/N --store {store}` makes them")
    with ExitStack() as leases:
        check = leases.enter_context(hold_lease(store, "merge"))
        for shard in shards:
            leases.enter_context(hold_lease(shard, "merge"))
            check_finished(shard)
        about = [read_store(shard) for shard in shards]
        if any(other != about[0] for other in about):
            raise ValueError(f"the shards {list(shards)} were made differently: bring them up to date with --recompute")
        there = {domain.name for domain in read_store_domains(store)}
        found = [(shard, domain.name) for shard in shards for domain in read_store_domains(shard)]
        new = [(shard, name) for shard, name in found if name not in there]
        if twice := {name for _, name in new if [other for _, other in new].count(name) > 1}:
            places = sorted({shard for shard, name in new if name in twice})
            raise ValueError(
                f"the domains {sorted(twice)} are in several of the shards {places}: a glacier belongs to one of them; "
                "where the number of shards has changed, keep those of one number and delete the others"
            )
        _check_scenes(store, found, there)
        crs = about[0]["crs"]
        open_store(store, crs=crs, made_by={key: value for key, value in about[0].items() if key != "crs"})
        # Before the glaciers, so that a call that is stopped takes them when it is repeated, and no later one does.
        take_tries(store, [shard for shard in shards if shard in {of for of, _ in new}], check)
        for shard in shards:
            wanted = [name for of, name in new if of == shard]
            for folder in OF_A_DOMAIN:
                check()
                _delete_copies(store, folder, wanted)
                _copy(shard, store, folder, wanted)
    return sorted(name for _, name in new)


def _check_scenes(store: str, found: Sequence[tuple[str, str]], there: Collection[str]) -> None:
    """Refuse domains (shard, name) whose scenes would be left out or lost; `there` are those that are merged."""
    here, of_shards = _scenes(store), {shard: _scenes(shard) for shard in dict(found)}
    for shard, name in found:
        mine, theirs = here.get(name, set()), of_shards[shard].get(name, set())
        if name in there and (more := sorted(theirs - mine)):
            raise ValueError(
                f"{shard} has {len(more)} scenes of {name} that {store} lacks, such as {more[0]}, and {name} was "
                "merged before: map them into the store itself, by `calfin map` without --shard"
            )
        if name not in there and (more := sorted(mine - theirs)):
            raise ValueError(
                f"{store} has {len(more)} scenes of {name} that {shard} lacks, such as {more[0]}, but no "
                f"domains/{name}.geojson: run `calfin map` with it, which writes it anew"
            )


def _scenes(store: str) -> dict[str, set[str]]:
    """Keys of the scenes of a store that have a state, by domain."""
    scenes: dict[str, set[str]] = {}
    for stored in read_batches(store):
        scenes.setdefault(stored.domain, set()).update(stored.items)
    return scenes


def _delete_copies(store: str, folder: str, names: Sequence[str]) -> None:
    """Delete what a call that was stopped has copied of domains; verdicts, called by their content, may stay."""
    fs, root = open_place(store)
    if folder != "reviews":
        delete_files(fs, _of_domains(fs, f"{root}/{folder}", names))


def _copy(shard: str, store: str, folder: str, names: Sequence[str]) -> None:
    """Copy the files of a folder that belong to domains, those of people's verdicts all."""
    (source, root), (target, to) = open_place(shard), open_place(store)
    paths = _of_domains(source, f"{root}/{folder}", names)
    read_each(lambda path: _copy_file(source, path, target, to + path.removeprefix(root)), paths)


def _of_domains(fs: fsspec.AbstractFileSystem, folder: str, names: Sequence[str]) -> list[str]:
    paths = [str(path) for path in fs.find(folder)]
    every = folder.endswith("/reviews")
    return [path for path in paths if every or _domain_in(path.removeprefix(f"{folder}/"), names)]


def _domain_in(name: str, names: Sequence[str]) -> bool:
    """Whether a path below a folder of a store is of one of these domains."""
    first = name.partition("/")[0]
    return any(first == of or re.fullmatch(re.escape(of) + r"(-[0-9a-f]{16})*\.[a-z.]+", first) for of in names)


def _copy_file(source: fsspec.AbstractFileSystem, path: str, target: fsspec.AbstractFileSystem, to: str) -> None:
    if not target.exists(to):
        write_whole(target, to, read_steady(source, path))
