"""Steps of scenes fail, or the store is silent or full: then no scene has failed, and the run must end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from calfin_cloud.schema import SceneError
from calfin_cloud.storage.stores import read_store
from calfin_cloud.whole_files import UNWRITABLE_NUMBERS

T = TypeVar("T")


class SilentStoreError(ConnectionError):
    """The store itself does not answer, so that no scene has failed."""


def unless_silent(store: str, steps: Iterable[Callable[[], T]]) -> list[T | Exception]:
    """Run a step for each scene; return what each came to, or the error of the scene, such as a damaged file.

    After an error the store's own file is read. Where that succeeds, the step is tried once more, since the store may
    have been silent for a moment only. Where it does not, or takes no file, this and all further scenes have an error
    for `check_answered` on the driver: raised on a worker it would be logged there with its traceback.
    """
    results: list[T | Exception] = []
    for step in steps:
        is_over = bool(results) and _ends_run(results[-1])
        results.append(results[-1] if is_over else _result(store, step))
    return results


def check_answered(results: list[T]) -> list[T]:
    """Return the results of scenes; raise `SilentStoreError` or `OSError` where one found the store silent or full."""
    for result in results:
        if isinstance(result, Exception) and _ends_run(result):
            raise result
    return results


def _ends_run(result: object) -> bool:
    return isinstance(result, SilentStoreError) or (isinstance(result, OSError) and result.errno in UNWRITABLE_NUMBERS)


def _result(store: str, step: Callable[[], T]) -> T | Exception:
    try:
        return step()
    except SceneError as error:
        return error
    except Exception as error:
        if _ends_run(error):
            return error
        try:
            read_store(store)
        except Exception as silent:  # errors of its clients cannot all be sent between processes
            return SilentStoreError(f"{store} cannot be read: {silent}")
    try:
        return step()
    except Exception as error:
        return error
