"""`calfin VERB ...`: parse the command line, call one function, print."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn


def command() -> NoReturn:
    """Run the verb of this process's call, and end the process with its exit code.

    Threads that still read are left at once. Python before 3.14 stops each where it next asks for the interpreter's
    lock (CPython issue 87135); in the middle of C++ code that aborts the process, or it waits for ever.
    """
    code = 1

    def leave_threads() -> None:
        if any(thread.daemon for thread in threading.enumerate()):
            give_up_unwritten()
            os._exit(code)

    atexit.register(leave_threads)  # before all others, so that it is called after them
    try:
        code = main()
    except SystemExit as error:
        code = int(error.code or 0)
    sys.exit(code)


def open_streams() -> None:
    """Make stdout and stderr fit for all that is printed: closed ones, and ones whose encoding lacks letters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as Python runs
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def give_up_unwritten() -> None:
    """Drop what cannot be printed, on a full disk or where nobody reads: Python would try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as Python runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 if all went well, 1 if scenes failed, 2 for a mistake in the call.

    A run whose cluster is lost, whose catalogue or storage cannot be reached, or whose store another run holds, exits
    with 3, one that is told to end, or whose output nobody reads, with 128 and the number of the signal: the same call
    resumes them. An unexpected error is logged with its traceback, and exits with 70.
    """
    open_streams()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before there is a verb, which says more
        print("calfin: interrupted", file=sys.stderr)
        return 130
    finally:
        give_up_unwritten()


def _run(arguments: Sequence[str]) -> int:
    import warnings

    from calfin_cloud.cli.config import with_config
    from calfin_cloud.cli.ends import MISTAKE, end, ended_by_sigterm
    from calfin_cloud.cli.output import set_up_log
    from calfin_cloud.cli.parser import make_parser

    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return MISTAKE
    try:
        options, unread = parser.parse_known_args(with_config(parser, arguments))
        if unread:
            with_blanks = getattr(options, "bbox", None) or getattr(options, "point", None)
            cure = "; write a place with commas: --bbox W,S,E,N, --point LON,LAT" if with_blanks else ""
            parser.error(f"unrecognized arguments: {' '.join(unread)}{cure}")
    except ValueError as error:
        print(f"calfin: {error}", file=sys.stderr)
        return MISTAKE
    except SystemExit:  # argparse has printed help, or what is wrong with the call
        try:
            sys.stdout.flush()
        except OSError as error:
            return end("--help", error)
        raise
    set_up_log(options)
    warnings.filterwarnings("ignore", message="Use `@` matmul", category=PendingDeprecationWarning)
    try:
        with ended_by_sigterm():
            code = int(options.run(options))
        sys.stdout.flush()  # else what cannot be written is found out when Python ends
    except (Exception, KeyboardInterrupt) as error:
        return end(options.verb, error)
    return code
