"""Options of a call from a TOML file: `--config run.toml` holds what a schedule passes, by the names of the flags."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any


def with_config(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Add the options of the file that `--config` names to a call; what the call itself says wins.

    Each key of the file is a long option without its dashes: `max-cloud = 0.3`, `domain = ["a", "b"]`, `json = true`,
    or a table for options of the form KEY=VALUE.

    Raises
    ------
    ValueError
        The file cannot be read, or has a key that is no option of the verb, or a value of the wrong kind.

    Examples
    --------
    >>> with_config(make_parser(), ["status", "fronts"])
    ['status', 'fronts']
    """
    finder = argparse.ArgumentParser(add_help=False)  # --conf is read too, as the verb's own parser does
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(list(arguments))[0].config
    verb = _verbs(parser).get(arguments[0]) if arguments else None
    if path is None or verb is None:
        return list(arguments)
    return [*arguments, *_tokens(verb, arguments, _read(path), path)]


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}; expected TOML, as max-cloud = 0.3") from error


def _tokens(
    verb: argparse.ArgumentParser, arguments: Sequence[str], values: dict[str, Any], path: Path
) -> Iterator[str]:
    """Options of a file as they stand in a call, without those that the call gives, or excludes."""
    known = {
        option.removeprefix("--"): action
        for action in verb._actions
        for option in action.option_strings
        if option.startswith("--") and option not in ("--help", "--config")
    }
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{path}: {verb.prog} has no option {unknown}; it has {sorted(known)}")
    given = {id(action) for name, action in known.items() if _is_given(name, known, arguments)}
    for group in verb._mutually_exclusive_groups:
        if given & {id(action) for action in group._group_actions}:
            given |= {id(action) for action in group._group_actions}
    for name, value in values.items():
        if id(known[name]) not in given:
            yield from _option(name, known[name], value, path)


def _is_given(name: str, known: dict[str, argparse.Action], arguments: Sequence[str]) -> bool:
    """Whether a call has an option, also where it is shortened as argparse allows."""
    said = [word.partition("=")[0].removeprefix("--") for word in arguments if word.startswith("--")]
    return any(name == word or (word not in known and word and name.startswith(word)) for word in said)


def _option(name: str, action: argparse.Action, value: Any, path: Path) -> Iterator[str]:  # noqa: ANN401 - of TOML
    """One option as words of a call."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{path}: {name} must be true or false, got {value!r}")
        yield from [f"--{name}"] if value else []
        return
    several = action.nargs == "+"
    if value == []:
        raise ValueError(f"{path}: {name} is an empty list: give it a value, or leave it out, which takes its default")
    if isinstance(value, dict) and several:
        value = [f"{key}={_text(item)}" for key, item in value.items()]
    values = value if isinstance(value, list) and several else [value]
    for item in values:
        if isinstance(item, bool | dict | list):
            raise ValueError(f"{path}: {name} takes {'values' if several else 'a value'}, got {item!r}")
        yield f"--{name}={_text(item)}"


def _text(value: Any) -> str:  # noqa: ANN401 - of TOML
    if isinstance(value, date | time):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value)
