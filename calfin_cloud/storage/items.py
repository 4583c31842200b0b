"""STAC items as a store keeps them: without signatures, and with a digest of what the pixels of a scene depend on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import NoneType
from typing import Any
from urllib.parse import unquote

from calfin_cloud.sensors import GRANULES_FIELD, in_utc, read_assets
from calfin_cloud.storage.files import digest

SIGNED = re.compile(
    r"x-amz-.*|x-goog-.*|x-oss-.*|x-obs-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires|policy"
    r"|key-pair-id|s[iprtve]|spr|sig|sip|sdd|ses|srt?|ss|sk(oid|tid|[etsv])|s[asc]oid|scid|sduoid|tempurl_.*"
    r"|q-(ak|sign.*|key-time|header-list|url-param-list)|hdn(ts|ea|tl)|__token__"
    r"|(.*[_-])?(token|secret|password|passwd|pwd|jwt|hmac|signature|credentials?|api[_-]?key|subscription-key)"
    r"|sas|auth(orization)?|apikey",
    re.IGNORECASE,
)
"""What signed addresses carry: of AWS, Google, Azure (and Planetary Computer), CloudFront, Tencent, Akamai, and plain
tokens."""

SECRET_FIELD = re.compile(
    r"(.*[:_-])?(sas|secret|password|passwd|pwd|jwt|bearer|credentials?|api[_-]?key|account_key|secret_?access_?key"
    r"|(access|sas|session|id)_?token|token|authorization|cookie)",
    re.IGNORECASE,
)
QUERY = re.compile(r"\?([^\s\"'<>#]*)")
FRAGMENT = re.compile(r"#([^\s\"'<>#?]*)")
USER = re.compile(r"(?<=://)[^/@\s?#]*@")
MOMENTS = ("datetime", "start_datetime", "end_datetime")
DECISIVE = re.compile(
    r"(proj|raster):.*|platform|eo:platform|instruments|s2:processing_baseline|processing:version"
    r"|earthsearch:boa_offset_applied"
)
DECISIVE_OF_ASSET = re.compile(
    r"(proj|raster):.*|bands|nodata|data_type|scale|offset|unit|file:(checksum|size)|checksum:.*"
)


def unsigned(text: str) -> str:
    """Address, or text with addresses, without signatures, tokens and users; all else of a query stays.

    >>> unsigned("https://a.example/b.tif?versionId=7&X-Amz-Signature=abc")
    'https://a.example/b.tif?versionId=7'
    """
    if "?" in text or "@" in text:
        text = QUERY.sub(_without_signature, USER.sub("", text))
    return FRAGMENT.sub(_without_signature, text) if "#" in text else text


def unsigned_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a STAC item (JSON values) without signatures and fields that hold secrets."""
    copy: dict[str, Any] = _clean(item)
    return copy


def item_digest(item: Mapping[str, Any]) -> str:
    """Digest of what the pixels of a scene depend on: the same however an address is signed, and whenever it is listed.

    These are ids, times, the files that may be read (address without query, checksum, size), their grid and scale. A
    provider that replaces pixels under the same address without a checksum is not noticed.
    """
    properties = _mapping(item.get("properties"))
    assets, read = _mapping(item.get("assets")), read_assets()
    known = {
        "id": item.get("id"),
        "collection": item.get("collection"),
        "moments": {name: _instant(properties[name]) for name in MOMENTS if properties.get(name)},
        "properties": {name: value for name, value in properties.items() if _matches(DECISIVE, name)},
        "assets": {key: _decisive(_mapping(assets[key])) for key in assets if key in read},
    }
    if further := item.get(GRANULES_FIELD):
        known["granules"] = [item_digest(granule) for granule in further]
    return digest(json.dumps(known, sort_keys=True, default=str).encode())


def _decisive(asset: Mapping[str, Any]) -> dict[str, Any]:
    alternate = _mapping(_mapping(asset.get("alternate")).get("s3"))
    hrefs = [USER.sub("", str(place.get("href"))).partition("?")[0] for place in (asset, alternate)]
    hrefs = [FRAGMENT.sub(_without_signature, href) for href in hrefs]
    return {"hrefs": hrefs} | {name: value for name, value in asset.items() if _matches(DECISIVE_OF_ASSET, name)}


def _mapping(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, Mapping) else {}


def _instant(text: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a time of whatever offset and precision in one way."""
    try:
        return in_utc(datetime.fromisoformat(str(text))).isoformat()
    except (ValueError, OverflowError):
        return str(text)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):  # nearly all that there are
        return unsigned(value)
    kind = type(value)  # what JSON makes; Mapping takes longer to say no
    if kind in (float, int, bool, NoneType):
        return value
    if kind is list:
        return [_clean(v) for v in value]
    if kind is dict or isinstance(value, Mapping):
        return {
            name: _clean(v)
            for name, v in value.items()
            if not (isinstance(v, str | list | tuple) and _matches(SECRET_FIELD, name))
        }
    return [_clean(v) for v in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=4096)  # items have the same fields again and again
def _matches(pattern: re.Pattern[str], name: str) -> bool:
    return bool(pattern.fullmatch(name))


def _without_signature(found: re.Match[str]) -> str:
    """Query or fragment of an address without what signs it; of a fragment a word alone names a place in the file."""
    mark, parts = found[0][0], found[1].split("&")
    kept = [part for part in parts if not _signs(part) or (mark == "#" and "=" not in part)]
    if kept == parts:
        return found[0]
    return f"{mark}{'&'.join(kept)}" if any(kept) else ""


def _signs(part: str) -> bool:
    """Whether a part of a query is of a signature, or is an address that has one."""
    inner = re.findall(r"[?&#]([^=&?#]+)=", unquote(part))
    return any(SIGNED.fullmatch(word) for word in (unquote(part.partition("=")[0]), *inner))
