"""Names of the last release that are gone in the next one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from calfin_cloud.object_stores import store_text
from calfin_cloud.results.reporting import write_report


def write_store_report(store: str, scenes: Any = None) -> str:  # noqa: ANN401 - as it was
    """Write the report of a store on disk into its folder `report`; `write_report` takes its place.

    Parameters
    ----------
    store
        Folder that `calfin map` made.
    scenes
        Is not used any more.

    Returns
    -------
    str
        Path of the page.

    Raises
    ------
    ValueError
        For a store that is no folder: name one of your own to `write_report`.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     cc.write_store_report("fronts")
    'fronts/report/index.html'
    """
    warnings.warn("write_store_report goes: call write_report(store, folder)", DeprecationWarning, stacklevel=2)
    store = store_text(store)
    if "://" in store.removeprefix("file://"):
        raise ValueError(f"{store} is no folder on this machine: call write_report(store, folder) with one")
    return str(write_report(store, Path(store.removeprefix("file://")) / "report"))
