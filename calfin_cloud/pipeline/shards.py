"""Glaciers cut into shards, each with a store, a lease and a cluster of its own, so that many can run at once."""

from __future__ import annotations

from collections.abc import Sequence

from calfin_cloud.domains import Domain
from calfin_cloud.storage import digest


def of_shard(domains: Sequence[Domain], store: str, k: int, n: int) -> tuple[list[Domain], str]:
    """Domains of the Kth of N shards, and the address of its store.

    The name of a domain alone decides, so that glaciers that are added move no others.

    Parameters
    ----------
    store
        Into which `calfin merge` makes the shards one.
    k, n
        1 <= k <= n.
    """
    own = [domain for domain in domains if int(digest(domain.name.encode()), 16) % n == k - 1]
    return own, f"{store.rstrip('/')}/shards/{k}-of-{n}"
