"""The documentation's commands are run, and its links followed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def console_commands(page: Path) -> list[str]:
    """The `$` lines of a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def workplace(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the project's root, with tiny-wan's finished work in `artifacts`."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("recipes", "models"):
        (root / name).symlink_to(ROOT / name)
    (root / "artifacts").symlink_to(tiny_bundle.parent.parent)
    return root


@pytest.mark.parametrize("command", console_commands(ROOT / "README.md"))
def test_the_readme_s_commands_work(command: str, workplace: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "wanc"
    done = subprocess.run(
        [sys.executable, "-m", "wanc", *arguments], cwd=workplace, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


API = ROOT / "docs" / "api.md"
BLOCKS = [re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL) for page in PAGES]
PROGRAMS = [program for blocks in BLOCKS for program in blocks]


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_in_the_documentation_run(program: str, workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=workplace, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_documentation_has_every_option_of_a_request_in_its_words() -> None:
    from wanc.runtime.options import VIDEO, options_of

    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", API.read_text("utf-8"), flags=re.MULTILINE))
    options = [option for option in options_of(VIDEO) if option.name not in ("prompts", "stream", "keep_partial")]
    assert list(rows) == [option.name for option in options]
    # Of files a command line reads what Python is given.
    assert all(rows[option.name] == option.help for option in options if option.type is not Path)


def test_the_readme_shows_commands() -> None:
    assert len(console_commands(ROOT / "README.md")) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_files_that_the_readme_names_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    named = re.findall(r"`((?:tests|scripts|docs|recipes|bench)/[\w/.-]+\.\w+)`", readme)
    assert named and all((ROOT / name).exists() for name in named)


RECIPES = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


@pytest.mark.parametrize("block", RECIPES)
def test_recipes_in_the_documentation_are_recipes(block: str, tmp_path: Path) -> None:
    from wanc.recipe.load import load

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(block, "utf-8")
    assert load(recipe)[0].recipe.name


def test_the_documentation_shows_every_kind_of_model() -> None:
    assert len(RECIPES) >= 3
    assert all(any(f"  {kind}: " in block for block in RECIPES) for kind in ("onnx", "torch"))
