"""An address that a catalogue names in; the address as it may be opened out, or a refusal.

What is checked by name when a scene is planned is checked again on the worker, by what the name leads to and at each
redirect. GDAL asks the server once more by itself and follows what it then says: where a catalogue is not trusted at
all, the network of the workers has to forbid its own addresses too (`deploy/`).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import CATALOG_FIELD

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV4_IN_IPV6 = {
    "::ffff:0:0/96": 0,
    "::/96": 0,
    "::ffff:0:0:0/96": 0,
    "64:ff9b::/96": 0,
    "64:ff9b:1::/48": 0,
    "2002::/16": 80,
}
"""Networks of IPv6 whose addresses lead to one of IPv4, and behind how many bits it is: mapped, compatible, translated
(RFC 7915), through a NAT64 (RFC 6052, 8215) and 6to4."""

FURTHER_PRIVATE = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10")))
"""Networks that Python 3.11 calls public: for protocols (RFC 6890; the metadata of a cloud are at 192.0.0.192), and
local to a site (RFC 3879)."""


def check_address(href: str, catalog: str) -> None:
    """Raise `SceneError("refused_address")` unless an item of `catalog` may make us open `href`.

    Allowed are https, http, s3, gs and az; a local file only where the catalogue is one. A loopback or private host is
    opened only for a catalogue that is local or on such a host itself, a link-local one (where clouds keep their
    credentials) only for a catalogue on that very host; GDAL's own prefixes and files that refer to others never.
    """
    parts = _split(href)
    if "<" in href or parts.path.lower().endswith((".vrt", ".xml")):
        _refuse(href, "a file that refers to other files")
    if parts.scheme in ("s3", "gs", "az"):
        return
    if parts.scheme in ("http", "https"):
        _check_host(href, parts.netloc, catalog)
    elif parts.scheme in ("", "file"):
        if not parts.path.startswith("/") or parts.netloc or re.match(r"/+vsi", parts.path):
            _refuse(href, "not an absolute path of a plain file")
        if not catalog:
            _refuse(
                href,
                "a local file, and its item names no catalogue: take items from search_scenes or items_from_images, or "
                f"set item.extra_fields[{CATALOG_FIELD!r}] to the path of the file that the item is from",
            )
        if not _is_local(catalog):
            _refuse(href, f"a local file, named by the catalogue {catalog}, which is not local")
    else:
        _refuse(href, "not https, http, s3, gs or az")


def check_resolved(href: str, catalog: str) -> None:
    """Raise `SceneError("refused_address")` where the name of a public host leads to a loopback or private one.

    Private hosts are open to a catalogue whose own name leads to one, link-local ones to none.
    """
    host, own = host_of(href), host_of(catalog)
    if not host or host == own or ip_address(host):
        return
    for address in _addresses_of(host):
        is_near = _is_near(catalog) or (any(not is_public(a) for a in _addresses_of(own)))
        if not is_public(address) and (not is_near or address.is_link_local or address.is_unspecified):
            _refuse(href, f"its name leads to {address}")


def redirected(href: str, target: str, catalog: str) -> str:
    """Return the address that a server sends us to, if an item of `catalog` could have named it itself."""
    if urlsplit(target).scheme not in ("http", "https"):
        _refuse(target, f"{shown(href)} redirects to it")
    check_address(target, catalog)
    return target


def host_of(href: str) -> str:
    """Name of the host in an address, "" where it has none."""
    try:
        return urlsplit(href).hostname or ""
    except ValueError:
        return ""


def shown(href: str) -> str:
    """Address for messages: without the query, where signatures are."""
    return without_query(href)[:300]


def without_query(text: str) -> str:
    """Text without what follows the question mark of addresses in it."""
    return re.sub(r"\?[^\s\"'<>]*", "", text)


def _split(href: str) -> SplitResult:
    try:
        return urlsplit(href)
    except ValueError as error:
        raise SceneError("refused_address", f"refused to open {shown(href)}: {error}") from None


def _check_host(href: str, netloc: str, catalog: str) -> None:
    host = host_of(href)
    # What else may stand here (user names, escapes, other alphabets) is read differently by Python and by curl.
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", netloc) or not host or "\\" in href:
        _refuse(href, "not the plain name of a host")
    address = ip_address(host)
    if address is None or is_public(address) or host == host_of(catalog):
        return
    if not _is_near(catalog) or address.is_link_local or address.is_unspecified:
        _refuse(href, "a loopback, private or link-local host, which the catalogue is not")


def _is_local(catalog: str) -> bool:
    return catalog.startswith("/") and not catalog.startswith("//")


def _is_near(catalog: str) -> bool:
    """Say whether the catalogue is a local file, or on a loopback or private host."""
    address = ip_address(host_of(catalog))
    return _is_local(catalog) or (address is not None and not is_public(address))


def ip_address(host: str) -> IPAddress | None:
    """Address that `host` spells, in the short and decimal forms too that curl reads; None for another name."""
    host = host.rstrip(".")
    if host.lower().endswith("localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return _led_to(address)


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the internet's."""
    return address.is_global and not any(address in network for network in FURTHER_PRIVATE)


def _led_to(address: IPAddress) -> IPAddress:
    """Address of IPv4 that one of IPv6 leads to, else the address itself."""
    if address.version == 6 and not address.is_loopback:
        for network, bits in IPV4_IN_IPV6.items():
            if address in ipaddress.IPv6Network(network):
                return ipaddress.IPv4Address(int(address) >> bits & 0xFFFFFFFF)
    return address


def _addresses_of(host: str) -> set[IPAddress]:
    """Addresses that a name leads to; none where it cannot be found, since a proxy may know it."""
    try:
        found = {str(entry[4][0]).split("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
    return {address for text in found if (address := ip_address(text))}


def _refuse(href: str, why: str) -> NoReturn:
    raise SceneError("refused_address", f"refused to open {shown(href)}: {why}")
