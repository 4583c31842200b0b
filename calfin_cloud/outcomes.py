"""What a network's task hands on: masks in whole steps, or an error of one scene. Imports nothing."""

from __future__ import annotations

LEVELS, MISSING = 250, 255
"""A probability passes between steps, and is stored, as uint8: 251 steps of 0.004; `MISSING` where there is no data."""


class SceneError(RuntimeError):
    """A scene that cannot be mapped: `reason` is a code of `REASONS`, the message says what was got."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both in args, so that it survives pickling between workers
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message
