"""What a verb says: its result on stdout, in words or as JSON; notes, progress and log lines on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

notes = logging.getLogger("calfin")


class JsonLines(logging.Formatter):
    """A log record as one line of JSON with its time in UTC, and the run it belongs to.

    The run is called as the environment says in `CALFIN_RUN`, as the chart's pods do, else by a random name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run = os.environ.get("CALFIN_RUN") or secrets.token_hex(4)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record: `time` (ISO 8601), `run`, `level`, `logger`, `message`, and `error` where there was one."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "run": self.run, "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_log(options: argparse.Namespace) -> None:
    """Send the log to stderr as the call asks: in words, or as lines of JSON; notes are plain words otherwise."""
    is_json = options.log_format == "json"
    lines = JsonLines() if is_json else None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(lines or logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, handlers=[handler])
    logging.captureWarnings(is_json)
    if not options.verbose:  # a line a try; what they come to is told
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # how often it made a graph, where networks change
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(lines or logging.Formatter("%(message)s"))
    notes.handlers, notes.propagate = [told], False
    notes.setLevel(logging.INFO)


def note(text: str, *, level: int = logging.INFO) -> None:
    """Say something beside the result, on stderr."""
    notes.log(level, text)


def how_many(n: int, what: str, many: str = "") -> str:
    """Say a number of things, `what` being the word for one, `many` for several where that is no `s` more.

    Examples
    --------
    >>> how_many(1, "scene"), how_many(0, "scene")
    ('1 scene', '0 scenes')
    """
    return f"{n} {what}" if n == 1 else f"{n} {many or what + 's'}"


def tell(options: argparse.Namespace, result: Any, *lines: str) -> None:  # noqa: ANN401 - any value of JSON
    """Print the result of a verb: as JSON where `--json` asks for it, else the lines for people."""
    if options.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, default=_plain))
    else:
        print(*lines, sep="\n", end="\n" if lines else "")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as values of JSON: times in ISO 8601, None where a value is missing."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", date_format="iso", date_unit="s"))
    return rows


def bar(options: argparse.Namespace, what: str, unit: str, values: Any = None) -> tqdm[Any]:  # noqa: ANN401 - as tqdm
    """Make the bar of a verb's progress, over values or moved by hand: in a terminal only, never amid JSON."""
    from tqdm import tqdm

    return tqdm(values, desc=what, unit=unit, disable=True if options.log_format == "json" else None)


def watcher(options: argparse.Namespace, unit: str) -> Callable[[str, Sequence[Any]], Iterable[Any]]:
    """Return a function that shows a bar for each step: the `watch` of `measure_series` and `write_report`."""
    return lambda what, parts: bar(options, what, unit, parts)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what json cannot write
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path | datetime):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no value of JSON")
