"""Where faults are injected, and what became of the fronts: a world behind a proxy, and a row of the matrix."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from distributed import LocalCluster
from servers.proxy import FaultProxy, FlippingWire

from faults.world import World, calfin, difference, states


@dataclass(frozen=True)
class Stage:
    """A world behind a proxy, the workers that map it (None: this process), where stores go, a seed.

    `seconds` is how long a run takes that nothing disturbs.
    """

    world: World
    proxy: FaultProxy
    stores: str
    seed: int
    workers: LocalCluster | None = None
    wire: FlippingWire | None = None
    seconds: float = 0.0

    @property
    def cluster(self) -> str:
        return self.workers.scheduler_address if self.workers else "none"

    @property
    def draw(self) -> random.Random:
        return random.Random(self.seed)

    def map(self, store: str, *more: str) -> int:
        """Map all scenes; return the exit code."""
        return self.world.map(store, *more, cluster=self.cluster)

    def retry(self, store: str) -> int:
        """Map the failed ones again; return the exit code."""
        return calfin("retry", store, "--cluster", self.cluster)


@dataclass
class Row:
    """What a fault did: how often it was injected, to which scenes, and what became of the fronts."""

    injected: Counter[str] = field(default_factory=Counter)
    hit: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    unlike: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def look(self, stage: Stage, store: str, *, finished: bool = False) -> None:
        """Compare the store with that of the undisturbed run; one that is not finished may lack scenes."""
        lost, doubled, changed = difference(stage.world.undisturbed, store, finished=finished)
        self.lost.update(lost)
        self.doubled.update(doubled)
        self.changed.update(changed)
        if not finished:
            self.states.update(states(store))


Harm = Callable[[Stage, str, Row], AbstractContextManager[Stage]]


def unfinished(stage: Stage, store: str) -> set[str]:
    """Scenes that a store lacks; all, where there is none."""
    from calfin_cloud.storage import finished_keys  # noqa: PLC0415

    done = finished_keys(store) if store and states(store) else set()
    return finished_keys(stage.world.undisturbed) - done


def wait_for(is_so: Callable[[], Any], seconds: float = 240) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)
