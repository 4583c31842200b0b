import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_prints_what_it_says(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    said = re.search(r"prints\n\n```\n(.*?)```", README, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    # Lengths and confidences may differ in the last digits between processors; states and reasons may not.
    words = [re.findall(r"[A-Za-z_:']+", text) for text in (printed, said)]
    assert words[0] == words[1]


def test_every_command_of_the_readme_is_one_that_calfin_has():
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415 - it sets TensorFlow's log level

    for line in re.findall(r"^calfin (.*?)(?:\s+#.*)?$", README, re.MULTILINE):
        make_parser().parse_args(line.split())
