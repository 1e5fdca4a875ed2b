"""Verbs on things that are no bundle, no store and no recipe: all that is said, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .bad_input import RECIPE, Case, answer, write


def printed(answer: Any) -> str:
    return json.dumps(answer) + "\n"


CASES: dict[str, Case] = {
    "verify nothing": Case(
        "verify absent", code=66, err="error: absent: cannot open the bundle\ncaused by: No such file or directory\n"
    ),
    "verify a file": Case(
        "verify recipe.yaml", code=66, err="error: recipe.yaml: cannot open the bundle\ncaused by: Not a directory\n"
    ),
    "verify a folder": Case(
        "verify model",
        code=1,
        err="manifest.json: is missing\nerror: model is not what its manifest says\nhint: do not run it\n",
    ),
    "verify as JSON": Case(
        "verify model --json",
        code=1,
        err="",
        out='{"ok": false, "id": null, "failures": [{"path": "manifest.json", "reason": "is missing"}]}\n',
    ),
    "run nothing": Case(
        "run absent --prompt p -o v.mp4",
        code=66,
        err="error: absent: cannot open the bundle\ncaused by: No such file or directory\n",
    ),
    "run a file": Case(
        "run recipe.yaml --prompt p -o v.mp4",
        code=66,
        err="error: recipe.yaml: cannot open the bundle\ncaused by: Not a directory\n",
    ),
    "run a folder": Case(
        "run model --prompt p -o v.mp4",
        code=66,
        err="error: model/WANC: is missing\nhint: is this the directory of a bundle?\n",
    ),
    "run as JSON": Case(
        "run model --prompt p -o v.mp4 --json",
        code=66,
        err="error: model/WANC: is missing\nhint: is this the directory of a bundle?\n",
    ),
    "run without an output": Case(
        "run model --prompt p", code=2, err="error: missing option '-o' / '--output'\nhint: wanc run --help\n"
    ),
    "run what begins like a bundle": Case(
        "run b --prompt p -o v.mp4",
        code=66,
        err="error: b/manifest.json: is missing\nhint: is this the directory of a bundle?\n",
        broken=write("b/WANC", "wanc-bundle 1\n"),
    ),
    "run a bundle of a later format": Case(
        "run b --prompt p -o v.mp4",
        code=65,
        err="error: b/WANC: first line 'wanc-bundle 9' is not 'wanc-bundle 1'\n"
        "hint: this bundle was made for another version of wanc\n",
        broken=write("b/WANC", "wanc-bundle 9\n"),
    ),
    "inspect nothing": Case(
        "inspect absent",
        code=66,
        err="error: absent: there is no such file or folder\n"
        "hint: give the folder of a bundle or a checkpoint, a program.json, an .onnx or .safetensors "
        "file, or a key in the store\n",
    ),
    "inspect a folder": Case(
        "inspect model",
        code=65,
        err="error: model: is not the folder of a bundle, a program or a checkpoint\n"
        "hint: give the folder of a bundle or a checkpoint, a program.json, an .onnx or .safetensors "
        "file, or a key in the store\n",
    ),
    "inspect a text": Case(
        "inspect recipe.yaml", code=65, err="error: recipe.yaml: is not an ONNX model: no field starts before byte 1\n"
    ),
    "inspect no ONNX file": Case(
        "inspect m.onnx",
        code=65,
        err="error: m.onnx: is not an ONNX model: no number ends before byte 1\n",
        broken=write("m.onnx", b"\xff"),
    ),
    "inspect no safetensors file": Case(
        "inspect m.safetensors",
        code=65,
        err="error: m.safetensors: not a sound safetensors file: a header of 255 bytes in a file of 1\n",
        broken=write("m.safetensors", b"\xff"),
    ),
    "inspect a key of no store": Case(
        f"inspect {'0' * 64}",
        code=66,
        err="error: artifacts/store: no action's key begins with "
        "0000000000000000000000000000000000000000000000000000000000000000\n"
        "hint: there is no store here: use -o\n",
    ),
    "list no store": Case(
        "store ls", code=66, err="error: artifacts/store: there is no store here yet\nhint: `wanc build` makes one\n"
    ),
    "check no store": Case(
        "store fsck", code=66, err="error: artifacts/store: there is no store here yet\nhint: `wanc build` makes one\n"
    ),
    "clean no store": Case(
        "store gc", code=66, err="error: artifacts/store: there is no store here yet\nhint: `wanc build` makes one\n"
    ),
    "clean after no days": Case(
        "store gc --days 0",
        code=2,
        err="error: invalid value for '--days': Input should be greater than or equal to 1\n"
        "hint: wanc store gc --help\n",
    ),
    "list somebody's folder": Case(
        "store ls",
        code=66,
        err="error: artifacts/store: there is no store here yet\nhint: `wanc build` makes one\n",
        broken=write("artifacts/store/notes.txt", "mine"),
    ),
    "list a store of a later version": Case(
        "store ls",
        code=2,
        err="error: DIR/artifacts/store/VERSION: says 'wanc-store 9', not 'wanc-store 1'\n"
        "hint: this store belongs to another version of wanc: choose another directory for this one\n",
        broken=write("artifacts/store/VERSION", "wanc-store 9\n"),
    ),
    "why of no recipe": Case(
        "store why absent.yaml", code=2, err="error: absent.yaml: there is no file absent.yaml\nhint: check the path\n"
    ),
    "why of no model": Case(
        "store why recipe.yaml --set model.source=absent",
        code=66,
        err="error: artifacts/store: there is no store here yet\nhint: `wanc build` makes one\n",
    ),
    "check no recipe": Case(
        "recipe check absent.yaml",
        code=2,
        err="error: absent.yaml: there is no file absent.yaml\nhint: check the path\n",
    ),
    "check as JSON": Case(
        "recipe check recipe.yaml --json --set sampling.steps=0",
        code=2,
        out=printed(
            {
                "ok": False,
                "bundles": [],
                "problems": [
                    {
                        "message": "sampling.steps has to be at least 1, not the number 0",
                        "where": "--set sampling.steps=0",
                        "hint": "The number of denoising steps, evenly spaced before the shift.",
                        "text": "error: --set sampling.steps=0: sampling.steps has to be at least 1, not the number 0\n"
                        "hint: The number of denoising steps, evenly spaced before the shift.",
                    }
                ],
            }
        ),
        err="",
    ),
    "show no recipe": Case(
        "recipe show absent.yaml",
        code=2,
        err="error: absent.yaml: there is no file absent.yaml\nhint: check the path\n",
    ),
    "a new recipe without a folder": Case(
        "recipe new", code=2, err="error: missing argument 'source'\nhint: wanc recipe new --help\n"
    ),
    "a new recipe of a wrong name": Case(
        "recipe new model --name a/b",
        code=2,
        err="error: a/b is no name for a recipe\n"
        "hint: it has to be letters, digits, '_' and '-' with single dots between them, beginning "
        "with a letter or a digit\n",
    ),
    "no such verb": Case("frobnicate", code=2, err="error: no such command 'frobnicate'\nhint: wanc --help\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_answer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    case = CASES[name]
    assert answer(case, tmp_path) == (case.code, case.out, case.err)
