"""What the package says of itself: one version, one list of requirements, a README that stands alone."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
ON_CONDA = {"opencv-python-headless": "py-opencv"}


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_version_that_the_package_tells_is_the_installed_one():
    import calfin_cloud  # noqa: PLC0415

    assert calfin_cloud.__version__ == version("calfin-cloud")
    with pytest.raises(AttributeError, match="no_such_name"):
        calfin_cloud.no_such_name  # noqa: B018


def test_the_package_loads_nothing_heavy_before_it_is_asked():
    code = "import sys; before = set(sys.modules); import calfin_cloud; print(sorted(set(sys.modules) - before))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert "lazy_loader" in loaded
    assert "'numpy'" not in loaded


def test_calfin_tells_its_version(capsys):
    from calfin_cloud.cli import main  # noqa: PLC0415

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"calfin {version('calfin-cloud')}\n"


def test_all_files_that_name_the_version_name_the_same():
    assert yaml.safe_load(text("CITATION.cff"))["version"] == VERSION
    chart = yaml.safe_load(text("helm/calfin-cloud/Chart.yaml"))
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    assert f"## {VERSION}" in text("CHANGELOG.md")
    for path in ("deploy/README.md", "deploy/examples/job.yaml", "deploy/gateway/dask_gateway_config.py"):
        assert set(re.findall(r"calfin-cloud(?:-gpu)?:(\d[\w.]*)", text(path))) == {VERSION}, path


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    recipe = yaml.safe_load(text("deploy/conda/recipe.yaml"))
    assert recipe["context"]["version"] == VERSION
    wanted = dict(re.match(r"([\w-]+)(?:\[\w+\])?(.*)", need).groups() for need in PROJECT["project"]["dependencies"])
    asked = dict(need.split(" ", 1) for need in recipe["requirements"]["run"])
    assert asked.pop("python") == PROJECT["project"]["requires-python"]
    assert asked == {ON_CONDA.get(name, name): limit for name, limit in wanted.items()}


def test_on_the_index_the_readme_has_no_link_that_leads_nowhere():
    shown = text("README.md")
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        shown = re.sub(rule["pattern"], rule["replacement"], shown)
    assert not [to for to in re.findall(r"\]\(([^)]*)\)", shown) if not to.startswith("https://")]
    assert PROJECT["project"]["urls"]["Method"] in shown
    assert "](docs/" in text("README.md"), "there are such links in the repository"


def test_every_file_that_the_readme_links_to_exists():
    links = [to for to in re.findall(r"\]\(([^)#]*)[^)]*\)", text("README.md")) if not to.startswith("https://")]
    assert len(links) > 10
    assert [to for to in links if not (ROOT / to).exists()] == []


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate  # noqa: PLC0415
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return generate


def test_every_column_and_every_code_is_described_in_the_documentation(generate):
    tables = [generate.columns_table(of) for of in generate.TABLES.values()]
    tables += [generate.code_table(codes) for codes in (generate.schema.REASONS, generate.schema.POLYGON_REASONS)]
    for table in tables:
        rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.splitlines()[2:]]
        assert len(rows) > 3
        assert [row for row in rows if len(row[-1]) < 3 or row[-1].startswith("`schema")] == []


def test_every_verb_and_every_option_is_in_the_reference_of_commands(generate):
    from calfin_cloud.cli.parser import VERBS  # noqa: PLC0415

    page = generate.cli_page()
    assert re.findall(r"^## calfin (\w+)$", page, re.MULTILINE) == list(VERBS)
    assert "`--catalog URL_OR_FILE`" in page
    assert not re.findall(r"^\|[^|]*\|\s*\|$", page, re.MULTILINE), "every option says what it means"


def test_options_on_the_pages_can_be_typed_as_they_stand(tmp_path):
    (tmp_path / "cli.html").write_text("<p>or with –real a real scene, 1992–2022 – or <code>--real</code></p>")
    call = [sys.executable, ROOT / "docs" / "check.py", tmp_path]
    found = subprocess.run(call, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "cli.html: an option with one dash: –real\ntroubles: 1\n")
    assert "D" not in re.search(r'^smartquotes_action = "(\w+)"', text("docs/conf.py"), re.MULTILINE).group(1)
