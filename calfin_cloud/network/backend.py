"""Keras and the library below it, imported from here: TensorFlow's start lines are left out."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from calfin_cloud.network.threads import threads_here

LOG_LEVEL, SILENT = "TF_CPP_MIN_LOG_LEVEL", "3"
"""What of its log TensorFlow leaves out, from 0, nothing, to 3, all; who sets it sees what he asks for."""

START_LINE = re.compile(rb"WARNING: All log messages before absl|[IWE]\d{4} \d\d:|To enable the following instructions")
"""Lines that TensorFlow prints whatever its setting while it is imported, since its log is not set up by then."""


@contextmanager
def without_start_lines() -> Iterator[None]:
    """Hold back what is printed to the stream of errors, also by C++, and print of it what is no start line."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            printed.seek(0)
            for line in printed:
                if not START_LINE.match(line):
                    os.write(2, line)


if threads := threads_here():  # TensorFlow looks at no OMP_NUM_THREADS
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))

# Set for the processes that this one starts, too.
with without_start_lines() if os.environ.setdefault(LOG_LEVEL, SILENT) == SILENT else nullcontext():
    try:
        import keras
        from keras import layers, ops
    except ModuleNotFoundError as error:
        raise ValueError(
            "training, the engine keras and weights without files of OpenVINO need Keras and TensorFlow, which are not "
            f"here ({error}): install them, or take the image `training` of deploy/Dockerfile"
        ) from error

__all__ = ["keras", "layers", "ops"]
