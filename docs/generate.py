"""Pages that are made from the code: commands from the parser, columns from the schema, names from the package."""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import calfin_cloud
from calfin_cloud import schema
from calfin_cloud.cli.parser import make_parser

HERE = Path(__file__).parent
MADE = HERE / "generated"
TABLES = {"fronts": "FRONT_SCHEMA", "rejected": "REJECTED_SCHEMA", "polygons": "POLYGON_SCHEMA"}
COLUMN = re.compile(r'^\s+\("(\w+)", pa\.(\w+)\(.*?\)\),(?:\s+# (.*))?$')
API_HEAD = "# Python\n\nEach name is loaded when it is first used: `import calfin_cloud as cc`.\n\n"
SECTIONS = {
    "Where: domains and glaciers": ("domains", "glaciers"),
    "Scenes": ("scenes", "sensors", "imagery"),
    "Fronts": ("pipeline", "inference", "network", "fronts", "polygons"),
    "Stores": ("storage",),
    "Results": ("results", "products"),
    "Synthetic glaciers": ("sample",),
    "Training and scores": ("training", "evaluation"),
}


def write_pages() -> None:
    """Write all pages anew into the folder `generated`."""
    MADE.mkdir(exist_ok=True)
    pages = {"cli": cli_page(), "api": api_page(), "gallery": gallery_page()}
    pages |= {f"columns_{name}": columns_table(of) for name, of in TABLES.items()}
    pages |= {"reasons": code_table(schema.REASONS), "polygon_reasons": code_table(schema.POLYGON_REASONS)}
    for name, text in pages.items():
        path = MADE / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # Sphinx builds anew what has changed
            path.write_text(text, encoding="utf-8")


# --- commands, from the parser ----------------------------------------------------------------------------------------


def cli_page() -> str:
    """Describe every verb with its usage, options and examples."""
    parser = make_parser()
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    rows = "\n".join(
        f"| [`{name}`](#calfin-{name}) | {_cell(verb.description)} |" for name, verb in verbs.choices.items()
    )
    return f"| verb | what it does |\n|---|---|\n{rows}\n\n" + "\n".join(
        _verb(name, verb) for name, verb in verbs.choices.items()
    )


def _verb(name: str, verb: argparse.ArgumentParser) -> str:
    """Section of one verb."""
    examples = (verb.epilog or "").partition("\n")[2]
    usage = re.sub(r"\n\s+", "\n    ", verb.format_usage().removeprefix("usage: ").strip())
    rows = "\n".join(f"| {_flags(a)} | {_cell(a.help)} |" for a in verb._actions if a.dest != "help")
    return (
        f"(calfin-{name})=\n## calfin {name}\n\n{verb.description}\n\n```sh\n{inspect.cleandoc(examples)}\n```\n\n"
        f"| option | meaning |\n|---|---|\n{rows}\n\n:::{{dropdown}} Usage\n```text\n{usage}\n```\n:::\n"
    )


def _flags(action: argparse.Action) -> str:
    """Name of an option as it is written in a call, with what it takes."""
    takes = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    takes = "" if action.nargs == 0 else str(takes)
    if not action.option_strings:
        return f"`{takes}`"
    many = " ..." if action.nargs == "+" else ""
    named = f"`{action.option_strings[-1]} {takes}{many}`".replace(" `", "`").replace("|", "\\|")
    return f"{named} (required)" if action.required else named


def _cell(text: str | None) -> str:
    """Text of one line for a cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "\\<")


# --- columns and codes, from the schema -------------------------------------------------------------------------------


def columns_table(of: str) -> str:
    """List the columns of a table with their types; the words are the comments of `schema.py`."""
    rows = list(_columns(of))
    names = [name for name, *_ in rows]
    if names != getattr(schema, of).names:
        raise ValueError(f"schema.py must have a line for each column of {of}, got {names}")
    body = "\n".join(f"| `{name}` | {kind} | {_cell(words)} |" for name, kind, words in rows)
    return f"| column | type | what it holds |\n|---|---|---|\n{body}\n"


def _columns(of: str) -> Iterator[tuple[str, str, str]]:
    """Name, type and comment of each column: the comment stands on its line, or above it."""
    source = inspect.getsource(schema).partition(f"\n{of} = ")[2].partition("\n)\n")[0]
    above = ""
    for line in source.splitlines():
        if match := COLUMN.match(line):
            name, kind, words = match.groups()
            yield name, kind.rstrip("_"), words or above.strip()
            above = ""
        elif line.strip().startswith("# "):
            above += line.strip().removeprefix("#")


def code_table(codes: dict[str, str]) -> str:
    """List codes and what they mean."""
    body = "\n".join(f"| {f'`{code}`' if code else '(empty)'} | {_cell(words)} |" for code, words in codes.items())
    return f"| code | meaning |\n|---|---|\n{body}\n"


# --- the names of the package -----------------------------------------------------------------------------------------


def api_page() -> str:
    """List all public names by subject; each has a page of its own, made of its docstring."""
    rooms = {room: list(names) for room, names in groupby(_names(), key=lambda pair: pair[0])}
    listed = {room for of in SECTIONS.values() for room in of}
    sections = {title: [room for room in of if room in rooms] for title, of in SECTIONS.items()}
    sections["More"] = [room for room in rooms if room not in listed]
    return API_HEAD + "\n".join(
        f"## {title}\n\n```{{eval-rst}}\n.. autosummary::\n   :toctree: names\n   :nosignatures:\n\n"
        + "".join(f"   calfin_cloud.{name}\n" for room in of for _, name in rooms[room])
        + "```\n"
        for title, of in sections.items()
        if of
    )


def _names() -> list[tuple[str, str]]:
    """Public names with the module that each comes from, sorted."""
    made = (
        (getattr(calfin_cloud, name).__module__.split("."), name) for name in calfin_cloud.__all__ if name[0] != "_"
    )
    return sorted((parts[1] if len(parts) > 1 else "", name) for parts, name in made)


# --- notebooks --------------------------------------------------------------------------------------------------------


def gallery_page() -> str:
    """Show each executed notebook as a card with its title and its first picture."""
    cards = [_card(path) for path in sorted((HERE / "gallery").glob("*.ipynb"))]
    return "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "\n::::\n"


def _card(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    title = next(
        re.findall(r"^# (.+)", "".join(c["source"]), re.MULTILINE)[0] for c in cells if c["cell_type"] == "markdown"
    )
    pictures = [o["data"]["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    image = ""
    if pictures:
        (MADE / f"{path.stem}.png").write_bytes(base64.b64decode(pictures[0]))
        image = f":img-top: generated/{path.stem}.png\n:img-alt: First picture of the notebook\n"
    return f":::{{grid-item-card}} {title}\n:link: gallery/{path.stem}\n:link-type: doc\n{image}:::\n"
