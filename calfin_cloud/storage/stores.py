"""What a store is made with, its domains, pictures and documents: `store.json`, `domains/`, `pictures/`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import zarr
from PIL import Image

from calfin_cloud.domains import Domain, domains_json, read_domains
from calfin_cloud.object_stores import has_store, telling_lacks
from calfin_cloud.schema import check_name, short_name
from calfin_cloud.storage.files import (
    DamagedFileError,
    list_files,
    looking_twice,
    open_place,
    read_each,
    seal,
    store_address,
    unseal,
    write_whole,
)
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.zarr_places import zarr_place

OWN_NAMES = re.compile(r"masks|shards|lease-.*|\..*\.part")  # what a store may have before it is one
MOST_TOLD = 8  # differences of a store that a message names
RESTORE = "restore it from a copy, or map into a new store"


def open_store(store: str, *, crs: str, made_by: Mapping[str, Any]) -> None:
    """Make the store, or check that it was made with the same CRS, model and settings (`made_by`, JSON values).

    Raises `ValueError` for a store of another CRS or another model: mixing them would falsify the table.
    """
    wanted = json.loads(json.dumps({"crs": crs, **made_by}))
    fs, root = open_place(store)
    if is_store(store):
        check_made_alike(store, crs=crs, made_by=made_by)
        return
    names = [path.rpartition("/")[2] for path in fs.ls(root, detail=False)] if fs.exists(root) else []
    if any(not OWN_NAMES.fullmatch(name) for name in names):
        raise ValueError(f"{store} is not empty and not a store of calfin: choose an empty or a new folder")
    zarr.open_group(zarr_place(f"{store_address(store)}/masks"), mode="a", use_consolidated=False)
    commit_whole(fs, root, f"{root}/store.json", seal(wanted))


def check_made_alike(store: str, *, crs: str, made_by: Mapping[str, Any]) -> None:
    """Refuse a store that was made with another CRS, model or settings, and say just what differs.

    Raises
    ------
    ValueError
        It was, or a verb was stopped half way.
    """
    check_finished(store)
    differing = list(_differences(read_store(store), json.loads(json.dumps({"crs": crs, **made_by}))))
    if differing:
        remedy = "choose another store"
        if not any(told.startswith("crs ") for told in differing):
            remedy = "`calfin map --recompute` maps its scenes again with what is given now; or " + remedy
        more = f", and {len(differing) - MOST_TOLD} more" if len(differing) > MOST_TOLD else ""
        raise ValueError(f"{store} was made differently: {', '.join(differing[:MOST_TOLD])}{more}; {remedy}")


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401 - values of JSON
    """Name what differs between two values of JSON, by the names of the settings that lead there."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found | wanted):
            yield from _differences(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif found != wanted:
        yield f"{name} is {json.dumps(found)} in the store and {json.dumps(wanted)} now"


def is_store(store: str) -> bool:
    """Whether there is a store of calfin."""
    return has_store(store_address(store))


def outside_stores(folder: str | Path, *, but: str = "") -> Path:
    """Return the path of a folder for results, which may not be a store on disk or lie within one.

    Parameters
    ----------
    but
        Name of a folder right below a store that is allowed.

    Raises
    ------
    ValueError
        It is such a folder.
    """
    whole = Path(folder).resolve()
    for place in (whole, *whole.parents):
        if (place / "store.json").is_file() and not (but and whole == place / but):
            raise ValueError(f"{folder} belongs to the store {place}, whose files are its own: choose another folder")
    return Path(folder)


@looking_twice
def read_store(store: str) -> dict[str, Any]:
    """Return what the store was made with: CRS, model, code version, settings; `unfinished` is the mark of a change.

    Raises
    ------
    ValueError
        There is no store.
    DamagedFileError
        Its file is not the one that was written.
    """
    fs, root = open_place(store)
    path = f"{root}/store.json"
    try:
        with telling_lacks(store):
            data = bytes(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{store} is not a store of calfin: it has no store.json; make one with `calfin map`"
        ) from None
    return unseal(data, path, RESTORE)


def read_settings(store: str) -> dict[str, Any]:
    """Return the settings of the run that made a store, as JSON values.

    Raises
    ------
    ValueError
        There is no store, or it does not say them, as one that was not made by `calfin map`.
    """
    settings: dict[str, Any] | None = read_store(store).get("settings")
    if settings is None:
        raise ValueError(
            f"{store} does not say with which settings it was made, so nothing can be traced as it was: "
            "map its scenes into a new store with `calfin map`"
        )
    return settings


def check_finished(store: str, *, verb: str = "") -> None:
    """Refuse a store on which a verb other than `verb` was stopped half way: its tables are of two kinds.

    Raises
    ------
    ValueError
        It is such a store, or none.
    """
    mark = unfinished_change(read_store(store))
    if mark and mark["verb"] != verb:
        raise ValueError(f"{store}: {told_change(mark, store)}")


def unfinished_change(made_by: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the mark of a change that is under way or was stopped, None where there is none.

    It has `verb`, and where the version that set it knew them `by`, `since`, and `before`: what of `store.json` the
    change has replaced.
    """
    mark = made_by.get("unfinished")
    return {"verb": mark} if isinstance(mark, str) else mark


def told_change(mark: Mapping[str, Any], store: str) -> str:
    """Say who has changed a store and was stopped, when, and how to go on or back."""
    verb = mark["verb"]
    who = f" ({mark['by']}, since {mark['since']})" if "since" in mark else ""
    back = ""
    if "before" in mark:
        back = (
            f"; or back to what it was: `calfin retrace {store} --back`"
            if verb == "retrace"
            else f"; or back to what it was: the same with the network and options of {_words(mark['before'])}"
        )
    return f"`calfin {verb}`{who} was stopped before its end: run it again to the end{back}"


def _words(before: Mapping[str, Any]) -> str:
    """Say in a few words what a store was made with."""
    settings = {k: v for k, v in before.get("settings", {}).items() if not isinstance(v, dict)}
    named = {**settings, **{k: before[k] for k in ("model", "code") if k in before}}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def rewrite_store(store: str, content: Mapping[str, Any]) -> None:
    """Write `store.json` anew."""
    fs, root = open_place(store)
    commit_whole(fs, root, f"{root}/store.json", seal(content))


def keep_domain(store: str, domain: Domain, *, replace: bool = False) -> None:
    """Keep a domain with the store; one that differs from the kept one is refused unless it is to replace it.

    The grid stays for ever, since the masks lie on it.

    Raises
    ------
    ValueError
        The kept one differs: in its grid, or in anything unless `replace`.
    """
    fs, root = open_place(store)
    if not _is_kept(store, domain, replace=replace):
        commit_whole(fs, root, _domain_path(root, domain.name), _domain_text(domain))


def check_domains(store: str, domains: Iterable[Domain]) -> None:
    """Refuse domains that differ from those which a store has kept under their names, as `keep_domain` does."""
    kept = kept_domains(store)
    read_each(partial(_is_kept, store), [domain for domain in domains if domain.name in kept])


@looking_twice
def _is_kept(store: str, domain: Domain, *, replace: bool = False) -> bool:
    """Whether a store has kept just this domain; raises `ValueError` where it may not be kept instead of another."""
    fs, root = open_place(store)
    path = _domain_path(root, domain.name)
    try:
        text, own = bytes(fs.cat_file(path)), _domain_text(domain)
    except FileNotFoundError:
        return False
    if text == own:
        return True
    kept = _read_domain(text, path)
    if _domain_text(kept) == own:  # an earlier version wrote the same in other words
        return True
    if kept.grid != domain.grid:
        raise ValueError(f"domain {domain.name} has another grid in {store}: rename it or choose another store")
    if not replace:
        raise ValueError(
            f"{store} was made with another boundary, centreline, glacier id or known termini of the domain "
            f"{domain.name}: run `calfin retrace` with the new domain, or choose another store"
        )
    return False


def _domain_path(root: str, name: str) -> str:
    return f"{root}/domains/{check_name(name)}.geojson"


def _domain_text(domain: Domain) -> bytes:
    return seal(json.loads(domains_json([domain])))


@looking_twice
def read_store_domains(store: str) -> list[Domain]:
    """Read the domains that were mapped into a store, sorted by name."""
    fs, root = open_place(store)
    paths = list_files(fs, f"{root}/domains", ".geojson")
    return [_read_domain(data, path) for path, data in zip(paths, read_each(fs.cat_file, paths), strict=True)]


def kept_domains(store: str) -> set[str]:
    """Names of the domains whose file a store has, without reading them."""
    fs, root = open_place(store)
    return {path.rpartition("/")[2].removesuffix(".geojson") for path in list_files(fs, f"{root}/domains", ".geojson")}


def renamed_domains(store: str, domains: Sequence[Domain]) -> dict[str, str]:
    """Names of new domains that have the box of one in the store which is not among them, and the name of that."""
    names, kept = {domain.name for domain in domains}, kept_domains(store)
    if not (names - kept and kept - names):
        return {}
    missing = [domain for domain in read_store_domains(store) if domain.name not in names]
    news = [domain for domain in domains if domain.name not in kept]
    return {new.name: old.name for new in news for old in missing if new.grid == old.grid}


def domain_of(domains: Mapping[str, Domain], name: str, store: str) -> Domain:
    """Return a domain of a store by its name.

    Raises
    ------
    ValueError
        Its file is gone.
    """
    if name not in domains:
        raise ValueError(told_lost(name, store))
    return domains[name]


def told_lost(name: str, store: str) -> str:
    """Say that the file of a domain is gone, and what to do."""
    return f"{store} has fronts of {name} but no domains/{name}.geojson: run `calfin map` with it, which writes it anew"


def _read_domain(data: bytes, path: str) -> Domain:
    unseal(data, path, "delete it and run `calfin map` again, which writes it anew")
    (domain,) = read_domains(io.BytesIO(data))
    return domain


def write_picture(store: str, domain_name: str, scene_id: str, png: bytes) -> None:
    """Write the picture of one scene."""
    fs, root = open_place(store)
    write_whole(fs, f"{root}/{picture_path(domain_name, scene_id)}", png)


@looking_twice
def read_picture(store: str, domain_name: str, scene_id: str) -> bytes | None:
    """Read the picture of one scene, None where there is none.

    Raises
    ------
    DamagedFileError
        It is not the one that was written.
    """
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
    return f"{folder}/{check_name(domain_name)}/{short_name(name, of=scene_id)}.{ending}"
