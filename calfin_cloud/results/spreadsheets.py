"""Tables become CSV that a spreadsheet opens as what it is: text of a catalogue never becomes a formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from calfin_cloud.whole_files import whole_file

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is computed by spreadsheets (OWASP, CSV injection)."""


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    r"""Write a table as CSV; text that a spreadsheet would take for a formula gets an apostrophe before it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_csv(pd.DataFrame({"scene": ["=1+1"], "change_m": [-3.5]}), folder / "t.csv").read_text()
    "scene,change_m\n'=1+1,-3.5\n"
    """
    texts = [c for c in table.columns if table[c].dtype == object or isinstance(table[c].dtype, pd.StringDtype)]
    with whole_file(path) as unfinished:
        table.assign(**{c: table[c].map(_plain) for c in texts}).to_csv(unfinished, index=False)
    return path


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
