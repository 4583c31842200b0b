"""What a store holds, as metrics that Prometheus scrapes: scenes by state, who writes, and when last was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from calfin_cloud.storage import count_scenes
from calfin_cloud.storage.files import modified_times, open_place

LOOKS_EVERY_S = 300.0
"""A scrape between two looks gets the numbers of the last one: a look reads all tables of the store."""


class StoreMetrics:
    """A collector of prometheus_client; a store that cannot be read is told by `calfin_store_up`, not by silence.

    Examples
    --------
    >>> from prometheus_client import REGISTRY                                                     # doctest: +SKIP
    >>> REGISTRY.register(StoreMetrics("s3://bucket/fronts"))                                      # doctest: +SKIP
    """

    def __init__(self, store: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.store, self._now = store, now
        self._looked: float | None = None
        self._found: list[Any] = []

    def collect(self) -> Iterator[Any]:
        """Metrics of the store, looked at anew at most every five minutes."""
        if self._looked is None or self._now() - self._looked >= LOOKS_EVERY_S:
            self._found, self._looked = list(self._look()), self._now()
        yield from self._found

    def _look(self) -> Iterator[Any]:
        try:
            counts, written = count_scenes(self.store), last_written(self.store)
        except (ValueError, OSError):
            yield _gauge("calfin_store_up", "Whether the store can be read", 0)
            return
        yield _gauge("calfin_store_up", "Whether the store can be read", 1)
        scenes = {**counts["states"], "pending": counts["pending"]}
        yield _gauge("calfin_scenes", "Scenes that searches have found, by state", scenes, label="state")
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
    """Answer scrapes at http://host:port/metrics until the process is ended."""
    try:
        from prometheus_client import REGISTRY, start_http_server  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise ValueError(
            f'metrics need the extra kubernetes: pip install "calfin-cloud[kubernetes]" ({error})'
        ) from error
    REGISTRY.register(StoreMetrics(store))
    _, server = start_http_server(port)
    server.join()


def _gauge(name: str, text: str, value: float | dict[str, float], *, label: str = "") -> Any:  # noqa: ANN401
    """Make a gauge of one value, or of one for each value of a label."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    if not isinstance(value, dict):
        return GaugeMetricFamily(name, text, value=value)
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, number in value.items():
        family.add_metric([of], number)
    return family
