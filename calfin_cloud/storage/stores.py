"""What a store is made with, its domains, pictures and documents: `store.json`, `domains/`, `pictures/`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import zarr
from PIL import Image

from calfin_cloud.domains import Domain, domains_json, read_domains
from calfin_cloud.schema import check_name
from calfin_cloud.storage.files import (
    DamagedFileError,
    digest,
    list_files,
    open_place,
    read_each,
    seal,
    store_address,
    telling_credentials,
    unseal,
    write_whole,
)
from calfin_cloud.storage.leases import commit_whole

OWN_NAMES = re.compile(r"masks|lease-.*|\..*\.part")  # what a store may have before it is one
LONGEST_NAME = 200  # of a file, without its ending: file systems take 255 bytes
RESTORE = "restore it from a copy, or map into a new store"


def open_store(store: str, *, crs: str, made_by: Mapping[str, Any]) -> None:
    """Make the store, or check that it was made with the same CRS, model and settings (`made_by`, JSON values).

    Raises `ValueError` for a store of another CRS or another model: mixing them would falsify the table.
    """
    wanted = json.loads(json.dumps({"crs": crs, **made_by}))
    fs, root = open_place(store)
    if is_store(store):
        check_finished(store)
        found = read_store(store)
        if differing := {k for k in found | wanted if found.get(k) != wanted.get(k)}:
            got = {k: (found.get(k), wanted.get(k)) for k in sorted(differing)}
            remedy = "choose another store"
            if "crs" not in differing:
                remedy = "`calfin map --recompute` maps its scenes again with what is given now; or " + remedy
            raise ValueError(f"{store} was made differently: (store, now) = {got}; {remedy}")
        return
    names = [path.rpartition("/")[2] for path in fs.ls(root, detail=False)] if fs.exists(root) else []
    if any(not OWN_NAMES.fullmatch(name) for name in names):
        raise ValueError(f"{store} is not empty and not a store of calfin: choose an empty or a new folder")
    zarr.open_group(f"{store_address(store)}/masks", mode="a", use_consolidated=False)
    commit_whole(fs, root, f"{root}/store.json", seal(wanted))


def is_store(store: str) -> bool:
    """Whether there is a store of calfin."""
    fs, root = open_place(store)
    with telling_credentials(store):
        return bool(fs.exists(f"{root}/store.json"))


def read_store(store: str) -> dict[str, Any]:
    """Return what the store was made with: CRS, model, code version, settings; `unfinished` names a stopped verb."""
    fs, root = open_place(store)
    path = f"{root}/store.json"
    try:
        with telling_credentials(store):
            data = bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise ValueError(
            f"{store} is not a store of calfin: it has no store.json; make one with `calfin map`"
        ) from None
    return unseal(data, path, RESTORE)


def check_finished(store: str, *, verb: str = "") -> None:
    """Refuse a store on which a verb other than `verb` was stopped half way: its tables are of two kinds."""
    unfinished = read_store(store).get("unfinished")
    if unfinished and unfinished != verb:
        raise ValueError(f"{store}: `calfin {unfinished}` was stopped before its end: run it again to the end")


def begin_change(store: str, verb: str, **changes: object) -> None:
    """Say that `verb` is about to change all of a store to be as if made with `changes` (JSON values).

    Until `end_change` the store is unfinished, and all verbs but this one refuse it.
    """
    check_finished(store, verb=verb)
    _rewrite(store, read_store(store) | json.loads(json.dumps(changes)) | {"unfinished": verb})


def end_change(store: str) -> None:
    """Say that the change has come to its end."""
    _rewrite(store, {k: v for k, v in read_store(store).items() if k != "unfinished"})


def _rewrite(store: str, content: Mapping[str, Any]) -> None:
    fs, root = open_place(store)
    commit_whole(fs, root, f"{root}/store.json", seal(content))


def keep_domain(store: str, domain: Domain, *, replace: bool = False) -> None:
    """Keep a domain with the store; one that differs from the kept one is refused unless it is to replace it.

    The grid stays for ever, since the masks lie on it.
    """
    fs, root = open_place(store)
    path = f"{root}/domains/{check_name(domain.name)}.geojson"
    text = seal(json.loads(domains_json([domain])))
    if fs.exists(path):
        kept = bytes(fs.cat_file(path))
        if kept == text:
            return
        if not replace:
            raise ValueError(
                f"{store} was made with another boundary, centreline or grid of the domain {domain.name}: "
                "run `calfin retrace` with the new one, or choose another store"
            )
        if _read_domain(kept, path).grid != domain.grid:
            raise ValueError(f"domain {domain.name} has another grid in {store}: rename it or choose another store")
    commit_whole(fs, root, path, text)


def read_store_domains(store: str) -> list[Domain]:
    """Read the domains that were mapped into a store, sorted by name."""
    fs, root = open_place(store)
    paths = list_files(fs, f"{root}/domains", ".geojson")
    return [_read_domain(data, path) for path, data in zip(paths, read_each(fs.cat_file, paths), strict=True)]


def _read_domain(data: bytes, path: str) -> Domain:
    unseal(data, path, "delete it and run `calfin map` again, which writes it anew")
    (domain,) = read_domains(io.BytesIO(data))
    return domain


def write_picture(store: str, domain_name: str, scene_id: str, png: bytes) -> None:
    """Write the picture of one scene."""
    fs, root = open_place(store)
    write_whole(fs, f"{root}/{picture_path(domain_name, scene_id)}", png)


def read_picture(store: str, domain_name: str, scene_id: str) -> bytes | None:
    """Read the picture of one scene, None where there is none."""
    fs, root = open_place(store)
    path = f"{root}/{picture_path(domain_name, scene_id)}"
    if not fs.exists(path):
        return None
    data = bytes(fs.cat_file(path))
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()  # a PNG has a checksum in each of its parts
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedFileError(path, str(error), "delete it; `calfin retrace --all` draws it anew") from None
    return data


def picture_path(domain_name: str, scene_id: str) -> str:
    """Path of a scene's picture below the store."""
    return scene_path("pictures", domain_name, scene_id, "png")


def scene_path(folder: str, domain_name: str, scene_id: str, ending: str) -> str:
    """Path of a file of one scene below the store; the id, which comes from a catalogue, is quoted, a long one cut."""
    name = quote(scene_id, safe="").replace(".", "%2E")
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 17]}-{digest(scene_id.encode())}"
    return f"{folder}/{check_name(domain_name)}/{name}.{ending}"
