"""What a store holds, as metrics that Prometheus scrapes: scenes by state, who writes, and when last was written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from calfin_cloud.storage import count_scenes, is_store
from calfin_cloud.storage.files import modified_times, open_place

log = logging.getLogger(__name__)

LOOKS_EVERY_S = 300.0
"""Between two looks: each reads all tables, of 500,000 scenes for 84 s, which is longer than a scrape may take."""


class StoreMetrics:
    """A collector of prometheus_client, which tells what the last look at a store has found.

    A store that cannot be read is told by `calfin_store_up`, not by silence; one that no run has made yet can be read.

    Examples
    --------
    >>> from prometheus_client import REGISTRY                                                     # doctest: +SKIP
    >>> metrics = StoreMetrics("s3://bucket/fronts")                                               # doctest: +SKIP
    >>> REGISTRY.register(metrics)                                                                 # doctest: +SKIP
    >>> metrics.look()                                                                             # doctest: +SKIP
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._found: list[Any] = []
        self._was_there = False

    def collect(self) -> Iterator[Any]:
        """Metrics of the last look; none before the first."""
        yield from self._found

    def look(self) -> None:
        """Look at the store, for the scrapes to come."""
        try:
            self._found = [_gauge("calfin_store_up", "Whether the store can be read", 1), *self._look()]
        except Exception as error:  # clients of object stores have errors of their own, which are no OSError
            log.warning("%s cannot be read: %r", self.store, error)
            self._found = [_gauge("calfin_store_up", "Whether the store can be read", 0)]

    def _look(self) -> Iterator[Any]:
        if not self._was_there and not is_store(self.store):
            return  # no run has come to its first batch yet; what has been there and is gone is an error
        self._was_there = True
        counts, written = count_scenes(self.store), last_written(self.store)
        scenes = {**counts["states"], "pending": counts["pending"]}
        yield _gauge("calfin_scenes", "Scenes that searches have found, by state", scenes, label="state")
        yield _gauge(
            "calfin_behind_scenes", "Scenes that could not be mapped again and keep their rows", counts["behind"]
        )
        failed = {row["reason"]: row["scenes"] for row in counts["reasons"] if row["state"] == "failed"}
        yield _gauge("calfin_failed_scenes", "Failed scenes by reason", failed, label="reason")
        yield _gauge("calfin_store_wrong", "Sentences about what does not add up", len(counts["wrong"]))
        holder = counts["written_by"]
        since = datetime.fromisoformat(holder["since"]).timestamp() if holder and holder.get("since") else 0
        yield _gauge("calfin_lease_since_timestamp_seconds", "When the run that writes now began; 0: none", since)
        yield _gauge("calfin_last_written_timestamp_seconds", "When a batch was written last; 0: never", written)


def last_written(store: str) -> float:
    """Time of the newest table of fronts of a store, in seconds since 1970 by the clock of the storage; 0 without."""
    fs, root = open_place(store)
    return max((moment.timestamp() for moment in modified_times(fs, f"{root}/fronts").values()), default=0.0)


def serve(store: str, port: int) -> None:
    """Answer scrapes at http://host:port/metrics, and look every five minutes, until the process is ended."""
    try:
        from prometheus_client import REGISTRY, start_http_server  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise ValueError(
            f'metrics need the extra kubernetes: pip install "calfin-cloud[kubernetes]" ({error})'
        ) from error
    metrics = StoreMetrics(store)
    REGISTRY.register(metrics)
    start_http_server(port)  # in threads of its own
    while True:
        metrics.look()
        time.sleep(LOOKS_EVERY_S)


def _gauge(name: str, text: str, value: float | dict[str, float], *, label: str = "") -> Any:  # noqa: ANN401
    """Make a gauge of one value, or of one for each value of a label."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    if not isinstance(value, dict):
        return GaugeMetricFamily(name, text, value=value)
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, number in value.items():
        family.add_metric([of], number)
    return family
