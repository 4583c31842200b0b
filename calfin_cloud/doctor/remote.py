"""Checks of what is elsewhere: the catalogue, the files of its scenes, the store, and the clocks of their servers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import pystac
import requests
from distributed.threadpoolexecutor import ThreadPoolExecutor  # whose threads do not keep a process from ending

from calfin_cloud.doctor.findings import Finding, Status, problem, without_secrets
from calfin_cloud.domains import Domain
from calfin_cloud.imagery import stack_scenes
from calfin_cloud.public_catalogs import NAMES
from calfin_cloud.scenes.reading import LATER
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import band_of
from calfin_cloud.storage import check_domains as check_kept_domains
from calfin_cloud.storage import check_made_alike, is_store, lease_holder, read_store, told_change, unfinished_change
from calfin_cloud.storage.files import create_whole, delete_files, on_disk, open_place, write_whole

DEADLINE_S = 45.0
"""Longest time for one file: a run waits longer, but who asks for advice does not."""

MOST_DOMAINS = 3  # whose scenes are searched
SKEW_S, MOST_SKEW_S = 60.0, 900.0  # S3 refuses signatures that are 15 minutes off

Scene = tuple[pystac.Item, Domain]


def check_domains(domains: Sequence[Domain]) -> Finding:
    """Whether the domains fit into one store."""
    crs = sorted({domain.crs for domain in domains})
    if len(crs) > 1:
        return Finding(
            "domains", "problem", f"they are in {crs}", "map each CRS into its own store (--domain NAME ...)"
        )
    return Finding("domains", "ok", f"{len(domains)} in {', '.join(crs)}")


def check_catalog(describe: Callable[[], str]) -> Finding:
    """Whether the catalogue answers and is one: `describe` asks for its first document and says what it is."""
    try:
        return Finding("catalogue", "ok", f"answers: {describe()}")
    except (ValueError, OSError) as error:
        return problem("catalogue", _said(error), f"check its address, or name a public one: {NAMES}")


def find_examples(
    find_scenes: Callable[[Domain], Iterable[pystac.Item]], domains: Sequence[Domain]
) -> tuple[list[Finding], list[Scene]]:
    """Search the first domains; return what came of it, and one scene of each collection and host."""
    findings: list[Finding] = []
    examples: dict[tuple[str, str], Scene] = {}
    for domain in domains[:MOST_DOMAINS]:
        n = 0
        try:
            for item in find_scenes(domain):
                n += 1
                examples.setdefault((item.collection_id or "", _host(item)), (item, domain))
        except (ValueError, OSError) as error:
            remedy = "check the address, the collections and the period with `calfin search`"
            return [*findings, problem("catalogue", _said(error), remedy)], list(examples.values())
        if n == 0:
            said, remedy = f"no scene of {domain.name}", "check period, collections, and that the catalogue covers it"
            findings.append(Finding("catalogue", "warning", said, remedy))
        else:
            findings.append(Finding("catalogue", "ok", f"{n} scenes of {domain.name}"))
    return findings, list(examples.values())


def _said(error: BaseException) -> str:
    """Sentence of an error of a catalogue: it tells its cause, and `remedy_for` knows better what to do."""
    return str(error).removesuffix(f"; {LATER}")


def check_scene(item: Mapping[str, Any], domain: Domain, where: str) -> Finding:
    """Whether a scene can be read, from where this runs: its item as JSON values."""
    scene = pystac.Item.from_dict(dict(item), preserve_dict=True)
    what = f"scene of {scene.collection_id} {where}"
    began = time.monotonic()
    try:
        _within(DEADLINE_S, lambda: stack_scenes([scene], domain).compute(scheduler="synchronous"))
    except (SceneError, TimeoutError) as error:
        found = problem(what, str(error), "open its address by hand; if it opens, report this")
        page = _page_in_place_of(scene) if "not recognized" in str(error) else None
        return Finding(what, "problem", page[0], page[1]) if page else found
    return Finding(what, "ok", f"{scene.id} in {time.monotonic() - began:.1f} s")


def _within(seconds: float, read: Callable[[], Any]) -> Any:  # noqa: ANN401
    with suppress(TimeoutError):
        return ThreadPoolExecutor(1).submit(read).result(timeout=seconds)
    raise TimeoutError(f"no answer within {seconds:g} s")


def _page_in_place_of(item: pystac.Item) -> tuple[str, str] | None:
    """Tell a page for people where a scene should be: what it is, and what to do. Redirects are told, not followed."""
    with suppress(SceneError, requests.RequestException):
        href = item.assets[band_of(item).asset].href
        with requests.get(href, timeout=10, stream=True, allow_redirects=False) as answer:
            kind, shown = answer.headers.get("Content-Type", ""), without_secrets(href)
            if answer.is_redirect:
                to = urlsplit(urljoin(href, answer.headers["Location"])).netloc
                if to != urlsplit(href).netloc:
                    return f"{shown} redirects to {to}", LOGIN
            if answer.ok and kind.startswith("text/html"):
                return f"{shown} is a page, not a raster: {kind}", LOGIN
    return None


LOGIN = (
    "the provider wants a login: use its bucket (s3://, with credentials) or another catalogue that has the same scenes"
)


def check_clock(address: str) -> Finding:
    """Whether the clock of this machine agrees with that of a server, which refuses signatures otherwise."""
    try:
        answer = requests.head(address, timeout=10, allow_redirects=False)
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (requests.RequestException, KeyError, ValueError) as error:
        return Finding("clock", "warning", f"{without_secrets(address)} tells no time ({type(error).__name__})")
    return skew("clock", time.time() - theirs, f"of {urlsplit(address).hostname}")


def skew(check: str, seconds: float, whose: str) -> Finding:
    """Judge how far apart two clocks are."""
    said = f"this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the clock {whose}"
    if abs(seconds) <= SKEW_S:
        return Finding(check, "ok", f"within {SKEW_S:.0f} s of the clock {whose}")
    status: Status = "problem" if abs(seconds) > MOST_SKEW_S else "warning"
    return Finding(check, status, said, "set the clocks by NTP (timedatectl set-ntp true): signatures depend on them")


def check_store(store: str, where: str) -> Finding:
    """Whether the store can be written, read and cleaned from where this runs, and holds off a second writer."""
    check = f"store {where}"
    try:
        fs, root = open_place(store)
        was_there = not on_disk(fs) or os.path.exists(root)  # a look at an object store hides why it was refused
        path, data = f"{root}/.doctor-{uuid4().hex[:12]}.part", uuid4().bytes
        try:
            write_whole(fs, f"{path}", data)
            if bytes(fs.cat_file(path)) != data:
                return Finding(check, "problem", "what was written reads back otherwise", "do not use this storage")
            is_exclusive = not create_whole(fs, path, uuid4().bytes)
        finally:
            delete_files(fs, [path])
            if not was_there:
                os.rmdir(root)
    except Exception as error:  # whatever a file system of fsspec raises
        return problem(check, error, "check that the place exists and that you may write and delete there")
    if not is_exclusive:
        return Finding(
            check,
            "warning",
            "it can be written, but overwrites where it was told to create",
            "let one run at a time write there",
        )
    return Finding(check, "ok", "written, read and deleted; a second writer is held off")


def check_made_by(store: str, crs: str, made_by: Mapping[str, Any], domains: Sequence[Domain] = ()) -> Finding:
    """Whether a run with this CRS, model, settings and domains continues the store."""
    try:
        if not is_store(store):
            return Finding("store content", "ok", "new")
        found, holder = read_store(store), lease_holder(store)
    except Exception as error:  # as above
        return problem("store content", error, "check the address of the store")
    if mark := unfinished_change(found):
        said = f"`calfin {mark['verb']}` was stopped in it"
        return Finding("store content", "problem", said, told_change(mark, store))
    try:
        check_made_alike(store, crs=crs, made_by=made_by)
        check_kept_domains(store, domains)
    except (ValueError, OSError) as error:
        return problem("store content", error, "until this is mended, a run is refused")
    if holder:
        said = f"`calfin {holder['verb']}` on {holder['host']} writes to it now"
        return Finding("store content", "warning", said, "wait for its end: a second run is refused until then")
    return Finding("store content", "ok", "a run like this continues it")


def _host(item: pystac.Item) -> str:
    try:
        return urlsplit(item.assets[band_of(item).asset].href).netloc
    except SceneError:
        return ""
