import argparse
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_prints_what_it_says(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    said = re.search(r"prints\n\n```\n(.*?)```", README, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    # Lengths may differ in the last digits between processors; states and reasons may not.
    words = [re.findall(r"[A-Za-z_:']+", text) for text in (printed, said)]
    assert words[0] == words[1]
    lengths = [[float(number) for number in re.findall(r"\d+\.\d+", text)] for text in (printed, said)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.01)


def test_every_command_of_the_readme_is_one_that_calfin_has():
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415 - it sets TensorFlow's log level

    for line in re.findall(r"^calfin (.*?)(?:\s+#.*)?$", README, re.MULTILINE):
        make_parser().parse_args(line.split())


def faults(text):
    """Numbers of injected faults in the cells of a table."""
    cells = [cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")]
    return [int(cell.replace(",", "")) for cell in cells if re.fullmatch(r"\d[\d,]*", cell)]


def test_the_readme_sums_up_the_faults_that_its_page_lists_and_is_short_enough_to_be_read():
    section = README[README.index("## What it survives") : README.index("## How large")]
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    listed = faults(page[: page.index("## Exit codes")])
    assert f"{sum(listed):,} faults" in section
    assert sum(faults(section)) == sum(listed)
    assert len(README) < 10_000


def test_what_people_read_calls_synthetic_what_the_computer_drew():
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415 - as above

    (verbs,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    texts = {name: verb.format_help() for name, verb in verbs.choices.items()} | {"README": README}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    assert [name for name, text in texts.items() if re.search(r"\bpaint", text, re.IGNORECASE)] == []
