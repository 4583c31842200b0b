"""`calfin VERB ...`: parse the command line, call one function, print."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

# Imports that take seconds (TensorFlow, Dask) wait until a verb needs them, so that --help answers at once.
from calfin_cloud.cli.config import with_config
from calfin_cloud.cli.output import note, set_up_log
from calfin_cloud.cli.parser import make_parser

REMEDIES: dict[type, str] = {
    FileNotFoundError: "check the path",
    NotADirectoryError: "a folder is needed there, which may be new",
    FileExistsError: "a folder is needed there, which may be new",
    IsADirectoryError: "a file is needed there",
    PermissionError: "choose a path that you may read or write",
}
"""What to do about an error of the file system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 if all went well, 1 if scenes failed, 2 for a mistake in the call.

    A run whose cluster is lost, whose catalogue cannot be reached, or whose store another run holds, exits with 3, one
    that is told to end with 128 and the number of the signal: the same call resumes them.
    """
    parser = make_parser()
    try:
        options = parser.parse_args(with_config(parser, sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        print(f"calfin: {error}", file=sys.stderr)
        return 2
    set_up_log(options)
    warnings.filterwarnings("ignore", message="Use `@` matmul", category=PendingDeprecationWarning)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        note(f"calfin {options.verb}: {_told(error)}", level=logging.ERROR)
        return int(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        note(f"calfin {options.verb}: interrupted; the same call resumes", level=logging.ERROR)
        return 130


def _told(error: Exception) -> str:
    """Message of an error; s3fs tells with a word or with none that a server has refused it."""
    if isinstance(error, PermissionError) and error.filename is None:
        return f"the object store refuses: {error.__cause__ or error}; check its keys and endpoint in the environment"
    if isinstance(error, OSError) and error.filename is not None and type(error) in REMEDIES:
        return f"{error.filename}: {str(error.strerror).lower()}; {REMEDIES[type(error)]}"
    return str(error)
