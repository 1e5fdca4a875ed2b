"""The version of a stage's code: it changes with what the code does, and with nothing else."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wanc.compiler.stages import code_version as module
from wanc.compiler.stages.code_version import check_code, code_version
from wanc.errors import UserError


@contextmanager
def fresh() -> Generator[None]:
    """Nothing is remembered of the sources, as in a new process; nor is it afterwards."""
    caches = (module.code_version, module._code, module._imports, module._deferred)
    for cache in caches:
        cache.cache_clear()
    try:
        yield
    finally:
        for cache in caches:
            cache.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of wanc:  stage → helper → deep, stage → sub → sub.inner; nothing → alone."""
    files = {
        "__init__.py": "",
        "stage.py": "import json\nimport wanc.helper\nfrom wanc import sub\n",
        "helper.py": "def work():\n    from wanc.deep import value\n    return value\n",
        "deep.py": "value = 1\n",
        "sub/__init__.py": "from .inner import name\n",
        "sub/inner.py": "from ..shared import name\nfrom . import sibling\n",
        "sub/sibling.py": "",
        "sub/alone.py": "",
        "shared.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wanc.types\nname = 1\n",
        "types.py": "import wanc.stage\n",
        "alone.py": "import wanc.stage\n",
    }
    root = tmp_path / "wanc"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(module, "ROOT", root)
    return root


def version(name: str = "wanc.stage") -> str:
    """The code's version as a new process would compute it."""
    with fresh():
        return code_version(name)


@pytest.mark.parametrize(
    "name",
    [
        "stage.py",
        "helper.py",  # import wanc.helper
        "deep.py",  # from wanc.deep import value, inside a function
        "sub/__init__.py",  # from wanc import sub
        "sub/inner.py",  # from .inner import name
        "sub/sibling.py",  # from . import sibling
        "shared.py",  # from ..shared import name
        "__init__.py",  # runs before any module of the package
    ],
)
def test_a_change_of_what_is_imported_changes_the_version(package: Path, name: str) -> None:
    before = version()
    with (package / name).open("a") as stream:
        stream.write("changed = True\n")
    assert version() != before


@pytest.mark.parametrize("name", ["alone.py", "sub/alone.py", "types.py"])
def test_a_change_of_anything_else_does_not(package: Path, name: str) -> None:
    before = version()
    (package / name).write_text("changed = True\n")
    (package / "added.py").write_text("")
    assert version() == before


def test_a_new_import_changes_the_version(package: Path) -> None:
    (package / "helper.py").write_text("import wanc.alone\n")
    before = version()
    (package / "alone.py").write_text("changed = True\n")
    assert version() != before


def test_packages_on_the_way_count_because_they_run(package: Path) -> None:
    (package / "way/to").mkdir(parents=True)
    for name in ("way/__init__.py", "way/to/__init__.py", "way/to/it.py"):
        (package / name).write_text("")
    (package / "deep.py").write_text("import wanc.way.to.it\n")
    before = version()
    (package / "way/__init__.py").write_text("import wanc.alone\n")
    between = version()
    assert between != before
    (package / "alone.py").write_text("changed = True\n")
    assert version() != between


def test_functions_of_packages_on_the_way_do_not_run(package: Path) -> None:
    """So a package can offer what needs all of it, and its files do not depend on that."""
    with (package / "sub/__init__.py").open("a") as stream:
        stream.write("def offer():\n    import wanc.alone\n")
    (package / "sub/inner.py").write_text("")
    (package / "stage.py").write_text("import wanc.sub.sibling\n")
    before = version()
    (package / "alone.py").write_text("changed = True\n")
    assert version() == before
    (package / "stage.py").write_text("from wanc.sub import offer\n")
    before = version()
    (package / "alone.py").write_text("changed = 1\n")
    assert version() != before


def test_a_module_that_is_renamed_is_another(package: Path) -> None:
    before = version()
    (package / "deep.py").rename(package / "deeper.py")
    (package / "helper.py").write_text((package / "helper.py").read_text().replace("deep", "deeper"))
    assert version() != before


def test_where_the_package_lies_does_not_matter(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version()
    package.rename(tmp_path / "moved")
    monkeypatch.setattr(module, "ROOT", tmp_path / "moved")
    assert version() == before


HELPER = """\
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wanc.types

class Names:
    one: str
    two: int = 2

    def work(self, value=1):
        if value:
            return {"sum": value + 1.5, **{}}
        return None
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import json\n", '"""A module."""\nimport json\n'),
        ("one: str\n", 'one: str\n    """What it is."""\n'),
        ("value=1):\n", 'value=1):\n        """Works."""\n'),
        ("return None", "# There is none.\n        return None  # none"),
        ("value + 1.5, **{}", "(\n    value\n    + 1.50\n), ** {},"),
        ('"sum"', "'sum'"),
        ("import wanc.types", "import wanc.alone\n    from wanc.types import this"),
        ("if TYPE_CHECKING:\n    import wanc.types\n", ""),
        ("import json\n", "import json\n\n\n"),
    ],
)
def test_how_it_is_written_does_not_matter(package: Path, old: str, new: str) -> None:
    (package / "helper.py").write_text(HELPER)
    before = version()
    assert HELPER.count(old) == 1
    (package / "helper.py").write_text(HELPER.replace(old, new))
    assert version() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.5", "1.25"),
        ("1.5", "2"),
        ('"sum"', '"difference"'),
        ('"sum"', 'b"sum"'),
        ("value + 1.5", "value - 1.5"),
        ("value + 1.5", "(value, 1.5)"),
        ("return None", "return"),
        ("one: str\n    two: int = 2", "two: int = 2\n    one: str"),
        ("one: str", "one: bytes"),  # dataclasses and pydantic read them
        ("value=1", "value=2"),
        ("value=1", "*, value=1"),
        ("        return None\n", ""),
        ("import json", "import json as js"),
        ("if TYPE_CHECKING", "if not TYPE_CHECKING"),
    ],
)
def test_whatever_it_does_matters(package: Path, old: str, new: str) -> None:
    (package / "helper.py").write_text(HELPER)
    before = version()
    assert HELPER.count(old) == 1
    (package / "helper.py").write_text(HELPER.replace(old, new))
    assert version() != before


def test_what_runs_where_types_are_not_checked_is_followed(package: Path) -> None:
    text = "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import wanc.alone\n"
    (package / "helper.py").write_text(text)
    before = version()
    (package / "alone.py").write_text("changed = True\n")
    assert version() != before


def test_code_that_changes_while_it_builds_is_found(package: Path) -> None:
    """A stage's process imports it later than its version was computed."""
    (package / "helper.py").write_text(HELPER)
    version()
    check_code()
    path = package / "helper.py"
    times = path.stat()
    path.write_text(HELPER.replace("1.5", "2.5"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match="changed while it was building") as caught:
        check_code()
    assert caught.value.where == str(path)
