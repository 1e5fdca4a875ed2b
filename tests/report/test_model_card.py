"""A model's card names a detector or none; whatever a stranger's card holds is told at most, and never a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wanc.report.detectors.registry import DETECTORS
from wanc.report.model_card import CARD, MAX_BYTES, ModelCard, read_card

from ..conftest import ROOT

NAMED = "wanc: {detector: moving-shapes}"
FOUND = ModelCard(DETECTORS["moving-shapes"])


def card(folder: Path, content: str | bytes) -> ModelCard:
    """Of a checkpoint with that card."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / CARD).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_card(checkpoint)


def test_tiny_wan_names_its_own() -> None:
    assert read_card(ROOT / "models" / "tiny-wan") == FOUND


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"---\n{NAMED}\n---\n# A model\n", id="plain"),
        pytest.param("---\nlicense: apache-2.0\ntags:\n- 视频\nwanc:\n  detector: moving-shapes\n---", id="more"),
        pytest.param(f"\ufeff---\r\n{NAMED}\r\n---\r\n# A model\r\n", id="from Windows"),
        pytest.param(f"--- \n{NAMED}\nmodel-index: [{{name: m}}]\n---\n---\nno: yaml: here\n", id="a rule"),
        pytest.param("---\nwanc: {detector: moving-shapes, later: [1]}\n---\n", id="keys of a later wanc"),
        pytest.param(f"---\n{NAMED}\n---\n".ljust(MAX_BYTES), id="as large as it may be"),
    ],
)
def test_a_card_names_a_detector(content: str, tmp_path: Path) -> None:
    assert card(tmp_path, content) == FOUND


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("# A model\n\nIt is good.\n", id="no front matter"),
        pytest.param(f"\n---\n{NAMED}\n---\n", id="not at the very beginning"),
        pytest.param(f"# A model\n---\n{NAMED}\n---\n", id="further down"),
        pytest.param(f"---\n{NAMED}\n", id="without an end"),
        pytest.param("---\n---\n", id="nothing between"),
        pytest.param("---\nlicense: apache-2.0\n---\n", id="other keys"),
        pytest.param("---\nA rule\n---\n", id="a rule"),
        pytest.param("---\nwanc: moving-shapes\n---\n", id="wanc with something else"),
        pytest.param("---\nwanc:\n---\n", id="wanc with nothing"),
        pytest.param("---\ndetector: moving-shapes\n---\n", id="a detector of others"),
    ],
)
def test_a_card_names_none(content: str, tmp_path: Path) -> None:
    assert card(tmp_path, content) == ModelCard()


def test_without_a_card_there_is_none(tmp_path: Path) -> None:
    assert read_card(None) == read_card(tmp_path) == read_card(tmp_path / "nowhere") == ModelCard()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("---\nwanc: {detector: faces}\n---\n", "the detector 'faces'; wanc knows moving-shapes (README.md:2:18)"),
        (f"---\nwanc: {{detector: {'x' * 900}}}\n---\n", "names the detector 'xxx"),
        ('---\nwanc: {detector: "os.system\\u202e"}\n---\n', r"names the detector 'os.system\u202e'"),
        ("---\nwanc: {detector: 5}\n---\n", "names no text as detector; wanc knows moving-shapes"),
        ("---\nwanc: {detector: [moving-shapes]}\n---\n", "names no text as detector"),
        ("---\nwanc: {detector\n---\n", "is not read: README.md:2:16: not valid YAML"),
        (f"---\n{NAMED}\n{NAMED}\n---\n", "README.md:3:1: the key wanc stands twice"),
        ("---\nwanc: !!python/object:os.system {}\n---\n", "tags such as !!python/object:os.system are not accepted"),
        (f"---\nwanc: {'[' * 100}\n---\n", "the nesting is deeper than"),
        (b"---\nwanc: {detector: \xff}\n---\n", "README.md: is not UTF-8 text"),
        (f"---\n{NAMED}\n---\n".ljust(MAX_BYTES + 1), "larger than the 1048576 bytes allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_card_is_told(content: str | bytes, told: str, tmp_path: Path) -> None:
    found = card(tmp_path, content)
    (note,) = found.notes
    assert found.detector is None and told in note
    assert str(tmp_path) not in note and len(note) < 300 and note.isascii() and "\n" not in note


def test_what_is_no_file_of_its_own_is_not_opened(tmp_path: Path) -> None:
    """A link leads out of the checkpoint, and a pipe waits for ever."""
    (tmp_path / "secret").write_text(f"---\n{NAMED}\n---\n")
    told: list[str] = []
    for place in (tmp_path / "link", tmp_path / "pipe", tmp_path / "folder"):
        place.mkdir()
    (tmp_path / "link" / CARD).symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe" / CARD)
    (tmp_path / "folder" / CARD).mkdir()
    for name in ("link", "pipe", "folder"):
        found = read_card(tmp_path / name)
        assert found.detector is None
        told += found.notes
    assert told == [
        "The model card is not read: README.md: is a link, and none is followed.",
        "The model card is not read: README.md: is a FIFO.",
        "The model card is not read: README.md: is a directory.",
    ]
