"""A step of a scene fails, or the store itself has fallen silent: then no scene has failed, and the run must end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from calfin_cloud.schema import SceneError
from calfin_cloud.storage import read_store

T = TypeVar("T")


class SilentStoreError(ConnectionError):
    """The store itself does not answer, so that no scene has failed."""


def unless_silent(store: str, step: Callable[[], T]) -> T | Exception:
    """Return what a step of a scene came to, or the error of that scene, such as a damaged file.

    After an error the store's own file is read; where that succeeds, the step is tried once more, since the store may
    have been silent for a moment only.

    Raises
    ------
    SilentStoreError
        The store does not answer. Unlike the errors of its client, this one can be sent between processes.
    ValueError
        There is no store any more.
    """
    try:
        return step()
    except SceneError as error:
        return error
    except Exception:
        _check_answers(store)
    try:
        return step()
    except Exception as error:
        return error


def _check_answers(store: str) -> None:
    try:
        read_store(store)
    except ValueError:
        raise
    except Exception as error:
        raise SilentStoreError(f"{store} does not answer: {error}") from None
