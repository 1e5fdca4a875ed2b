"""Natural mistakes: `wanc recipe check` names the place and says what to write, and what it says to write works.

Each case is a project with one mistake, what has to be said of it, and a repair that follows the hint to the letter.
After the repair the same check has nothing more to say.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from ..conftest import ROOT, Wanc

RECIPE = """\
wanc: 1
name: mine
model:
  source: ../models/tiny-wan
shapes:
  - {name: 64p, height: 64, width: 64, frames: 17}
sampling:
  steps: 20
  shift: 4.0
  guidance: {high: 3.0, low: 3.0}
"""
INT8 = f"""{RECIPE}quantize:
  scheme: int8
  calibrate: {{prompts: prompts.txt}}
"""
MATRIX = f"""{RECIPE}matrix:
  fast: {{sampling.steps: 8}}
  fine: {{sampling.steps: 40}}
"""
ONNX = """\
wanc: 1
name: mine
model:
  onnx: graph.onnx
  example: {n: 3}
  values: {x: 0.5}
"""
TORCH = """\
wanc: 1
name: mine
model:
  torch: encoder:build
  inputs:
    - {name: x, shape: [n, 4]}
  example: {n: 3}
"""
R = "recipes/mine.yaml"

Change = Callable[[], object]


@dataclass(frozen=True)
class Mistake:
    """`text` with `old` become `wrong`; what is said begins at `place` and holds `said` and `hint`.

    Followed, `wrong` becomes `right`. `text` in place of that: `spoil` and `repair` change the project itself, or
    `arguments` are wrong, and `better` are right.
    """

    said: str
    hint: str
    place: str = R
    text: str = RECIPE
    old: str = ""
    wrong: str = ""
    right: str = ""
    spoil: Change = lambda: None
    repair: Change = lambda: None
    arguments: str = R
    better: str = R


def write(name: str, text: str | bytes) -> Change:
    return lambda: Path(name).write_bytes(text.encode() if isinstance(text, str) else text)


def rename(old: str, new: str) -> Change:
    return lambda: os.rename(old, new)


def change(old: str, wrong: str, right: str, place: str, said: str, hint: str, text: str = RECIPE) -> Mistake:
    return Mistake(said, hint, f"{R}:{place}: ", text, old, wrong, right)


STEPS, SHIFT, SIZE = "  steps: 20", "  shift: 4.0", "height: 64"
MISTAKES = {
    # nulls, and what YAML reads as one
    "misspelt, and nothing behind it": change(
        STEPS, f"{STEPS}\n  stepz:", STEPS, "9:3", "sampling has no key stepz", "did you mean steps?"
    ),
    "without a colon": change(
        "prompts.txt}",
        "prompts.txt, clips 6}",
        "prompts.txt, clips: 6}",
        "13:37",
        "quantize.calibrate has no key clips 6",
        "put a colon and a blank between them: `clips: 6`",
        INT8,
    ),
    "a value forgotten": change(
        SHIFT, "  shift:", SHIFT, "9:3", "sampling.shift has no value", "Wan2.2-T2V-A14B was tuned with 12"
    ),
    # units and kinds of values
    "480p": change(
        SIZE, "height: 480p", "height: 480", "6:25", "not the text 480p", "write the number alone, 480: In pixels"
    ),
    "blank and unit": change(
        SIZE, "height: 480 px", "height: 480", "6:25", "not the text 480 px", "write the number alone, 480"
    ),
    "frames in seconds": change(
        "frames: 17", "frames: 5 s", "frames: 81", "6:48", "not the text 5 s", "Frames of video, 4n + 1: 17, 33, 49, 81"
    ),
    "minutes": change(
        STEPS, "  steps: 20 minutes", STEPS, "8:10", "not the text 20 minutes", "The number of denoising steps"
    ),
    "a whole number as float": change(STEPS, "  steps: 4.0", "  steps: 4", "8:10", "not the number 4.0", "write 4"),
    "a number in quotes": change(STEPS, '  steps: "1e1"', "  steps: 10", "8:10", "not the text '1e1'", "write 10"),
    "a comma for the point": change(SHIFT, "  shift: 4,0", SHIFT, "9:10", "not the text 4,0", "write 4.0"),
    "yes": change(
        "  scheme: int8\n",
        "  scheme: fp8\n  emulate: yes\n",
        "  scheme: fp8\n  emulate: true\n",
        "13:12",
        "has to be true or false, not the text 'yes'",
        "write true",
        INT8,
    ),
    "a version that is a number": change(
        "name: mine", "name: mine\nversion: 1.0", 'name: mine\nversion: "1.0"', "3:10", "has to be text", "in quotes"
    ),
    "one scale": change(
        "guidance: {high: 3.0, low: 3.0}",
        "guidance: 3.0",
        "guidance: {high: 3.0, low: 3.0}",
        "10:13",
        "sampling.guidance has to be a mapping, not the number 3.0",
        "write {high: 3.0, low: 3.0}",
    ),
    # lists and mappings
    "a list where one value belongs": change(
        STEPS, "  steps: [20]", STEPS, "8:10", "has to be a whole number, not a list of 1", "write 20"
    ),
    "one value where a list belongs": change(
        "sampling:",
        "engine: {targets: cpu}\nsampling:",
        "engine: {targets: [cpu]}\nsampling:",
        "7:19",
        "engine.targets has to be a list, not the text cpu",
        "write [cpu]",
    ),
    "a section as one word": change(
        "sampling:",
        "engine: openvino\nsampling:",
        "engine: {kind: openvino}\nsampling:",
        "7:9",
        "engine has to be a mapping, not the text openvino",
        "write {kind: openvino}",
    ),
    "a shape without its dash": change(
        "  - {name: 64p",
        "    {name: 64p",
        "  - {name: 64p",
        "6:5",
        "shapes has to be a list, not a mapping",
        "write [{name: 64p",
    ),
    # words
    "int4": change(
        "scheme: int8", "scheme: int4", "scheme: int4-weight", "12:11", "cannot be int4", "mean int4-weight?", INT8
    ),
    "INT8": change(
        "scheme: int8", "scheme: INT8", "scheme: int8", "12:11", "cannot be INT8", "did you mean int8?", INT8
    ),
    "a comma at the end": change(STEPS, f"{STEPS},", STEPS, "8:10", "not the text 20,", "write 20"),
    "an unknown solver": change(
        STEPS,
        f"  solver: ddim\n{STEPS}",
        f"  solver: euler\n{STEPS}",
        "8:11",
        "cannot be ddim",
        "unipc, euler, dpm++ or",
    ),
    "capitals": change(
        STEPS, f"  solver: UniPC\n{STEPS}", f"  solver: unipc\n{STEPS}", "8:11", "cannot be UniPC", "mean unipc?"
    ),
    "a capital key": change(STEPS, "  Steps: 20", STEPS, "8:3", "sampling has no key Steps", "did you mean steps?"),
    "a name with a blank": change(
        "name: mine", "name: my model", "name: my-model", "2:7", "name cannot be my model", "write my-model"
    ),
    "a key at the top": change(
        "wanc: 1", "wanc: 1\nsteps: 8", "wanc: 1", "2:1", "a recipe has no key steps", "did you mean sampling.steps?"
    ),
    # sizes
    "no multiple of 16": change(
        "width: 64", "width: 854", "width: 848", "6:36", "854 is not a multiple of 16", "the nearest are 848 and 864"
    ),
    "frames by the second": change(
        "frames: 17", "frames: 80", "frames: 81", "6:48", "80 is not 4n + 1", "the nearest are 77 and 81"
    ),
    # the text of the file
    "a tab": change(STEPS, "\tsteps: 20", STEPS, "8:1", "not valid YAML", "indent with spaces"),
    "a key twice": change(STEPS, f"{STEPS}\n{STEPS}", STEPS, "9:3", "the key steps stands twice", "keep one of them"),
    "a colon in a text": change(
        SHIFT,
        f"{SHIFT}\n  negative_prompt: bad: blurry",
        f'{SHIFT}\n  negative_prompt: "bad: blurry"',
        "10:23",
        "not valid YAML",
        "put quotes around text that holds ': '",
    ),
    "UTF-16": Mistake(
        "the file is UTF-16 text",
        "save it as UTF-8",
        spoil=write(R, RECIPE.encode("utf-16")),
        repair=write(R, RECIPE),
    ),
    # variants
    "a misspelt key in a variant": change(
        "fine: {sampling.steps: 40}",
        "fine: {sampling.stpes: 40}",
        "fine: {sampling.steps: 40}",
        "13:10",
        "sampling has no key stpes",
        "did you mean steps?",
        MATRIX,
    ),
    "a section in a variant": change(
        "fine: {sampling.steps: 40}",
        "fine: {sampling: {steps: 40}}",
        "fine: {sampling.steps: 40}",
        "13:10",
        "sampling.shift is missing",
        "to change one value of it, name that alone: sampling.steps",
        MATRIX,
    ),
    "a null in a variant": change(
        "fine: {sampling.steps: 40}",
        "fine: {sampling.stepz: }",
        "fine: {sampling.steps: 40}",
        "13:10",
        "sampling has no key stepz",
        "did you mean steps?",
        MATRIX,
    ),
    "a model that one variant names": change(
        "fine: {sampling.steps: 40}",
        "fine: {model.source: ../models/tiny-van}",
        "fine: {model.source: ../models/tiny-wan}",
        "13:24",
        "the model cannot be read",
        "did you mean ../models/tiny-wan?",
        MATRIX,
    ),
    # paths
    "a part of the checkpoint": change(
        "../models/tiny-wan",
        "../models/tiny-wan/transformer",
        "../models/tiny-wan",
        "4:11",
        "one part of a checkpoint, whose model_index.json lies above",
        "name the checkpoint's folder, ",
    ),
    "the name of a model on a hub": change(
        "../models/tiny-wan",
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "../models/tiny-wan",
        "4:11",
        "no such folder",
        "wanc downloads nothing: give the folder that it was downloaded to",
    ),
    "an address": change(
        "../models/tiny-wan",
        "https://example.org/models/wan",
        "../models/tiny-wan",
        "4:11",
        "no such folder",
        "wanc downloads nothing: give the folder that it was downloaded to",
    ),
    "a folder that is not there": change(
        "../models", "../model", "../models", "4:11", "the model cannot be read", "did you mean ../models/tiny-wan?"
    ),
    "a path from the working directory": change(
        "../models/tiny-wan",
        "models/tiny-wan",
        "../models/tiny-wan",
        "4:11",
        "the model cannot be read",
        "relative paths start from the folder of the file that they are written in: write ../models/tiny-wan",
    ),
    "a file for a folder": change(
        "../models/tiny-wan",
        "../models/tiny-wan/model_index.json",
        "../models/tiny-wan",
        "4:11",
        "the model cannot be read",
        "name the folder that it lies in: ",
    ),
    "a home": change(
        "../models/tiny-wan",
        "~/models/tiny-wan",
        "HOME/models/tiny-wan",
        "4:11",
        "the model cannot be read",
        "write it out, for nobody's home is in a recipe: HOME/models/tiny-wan",
    ),
    "prompts that are not there": change(
        "prompts.txt", "promts.txt", "prompts.txt", "13:24", "prompts cannot be read", "did you mean prompts.txt?", INT8
    ),
    "a folder for a file": change(
        "prompts.txt", "texts", "texts/a.txt", "13:24", "prompts cannot be read", "the file in it: texts/a.txt", INT8
    ),
    "prompts that are empty": Mistake(
        "it holds no prompt",
        "write a prompt in each line",
        f"{R}:13:24: ",
        INT8,
        spoil=write("recipes/prompts.txt", "# later\n"),
        repair=write("recipes/prompts.txt", "A red circle.\n"),
    ),
    "a base without its suffix": change(
        "wanc: 1",
        "extends: base",
        "extends: base.yaml",
        "1:10",
        "there is no file recipes/base",
        "did you mean base.yaml?",
    ),
    # what the model itself says
    "a pattern that fits nothing": change(
        "prompts.txt}",
        "prompts.txt}\n  keep: {patterns: [block.0]}",
        "prompts.txt}\n  keep: {patterns: [blocks.0]}",
        "14:21",
        "block.0 fits no module",
        "did you mean blocks.0",
        INT8,
    ),
    "a pattern of denoisers where the text encoder alone is quantised": change(
        "scheme: int8",
        "text_encoder: int8\n  keep: {patterns: [proj_out]}",
        "text_encoder: int8\n  keep: {patterns: [encoder.block.0]}",
        "13:21",
        "proj_out fits no module of text_encoder",
        "patterns are globs over modules, such as encoder",
        INT8,
    ),
    "scales the wrong way round": change(
        "{high: 3.0, low: 3.0}",
        "{high: 3.0, low: 4.0}",
        "{high: 4.0, low: 3.0}",
        "10:13",
        "high (3) is below low (4)",
        "were they swapped?",
    ),
    "an ONNX file that is not there": change(
        "graph.onnx", "graph", "graph.onnx", "4:9", "the model cannot be read", "did you mean graph.onnx?", ONNX
    ),
    "a size that the file does not have": change(
        "{n: 3}", "{batch: 3}", "{n: 3}", "5:20", "names 'batch', which is no size of the model", "it has: n", ONNX
    ),
    "a value for no input": change(
        "{x: 0.5}", "{X: 0.5}", "{x: 0.5}", "6:15", "names 'X', which is no input of the model", "it has: x", ONNX
    ),
    "an ONNX file as a checkpoint": Mistake(
        "the model cannot be read",
        "an ONNX file is given as `onnx`, in place of `source`",
        f"{R}:4:11: ",
        RECIPE.replace("../models/tiny-wan", "graph.onnx"),
        repair=write(R, ONNX),
    ),
    "a function that the module does not have": change(
        "encoder:build",
        "encoder:biuld",
        "encoder:build",
        "4:10",
        "no function biuld",
        "encoder:build?",
        TORCH,
    ),
    "a module that is not there": change(
        "encoder:build", "encodr:build", "encoder:build", "4:10", "the model cannot be read", "mean encoder?", TORCH
    ),
    # the command line
    "no such recipe": Mistake(
        "there is no file mine.yaml", "did you mean recipes/mine.yaml?", "mine.yaml: ", arguments="mine.yaml"
    ),
    "a recipe without its suffix": Mistake(
        "there is no file", "did you mean recipes/mine.yaml?", "recipes/mine: ", arguments="recipes/mine"
    ),
    "a folder of recipes": Mistake(
        "is a directory", "name the file in it: recipes/base.yaml", "recipes/: ".replace("/", ""), arguments="recipes"
    ),
    "a value without its section": Mistake(
        "a recipe has no key steps",
        "did you mean sampling.steps?",
        "--set steps=8: ",
        arguments=f"{R} --set steps=8",
        better=f"{R} --set sampling.steps=8",
    ),
    "no equals sign": Mistake(
        "a value is missing",
        "write --set path=value, such as sampling.steps=8",
        "--set sampling.steps: ",
        arguments=f"{R} --set sampling.steps",
        better=f"{R} --set sampling.steps=8",
    ),
    "a list's item that there is not": Mistake(
        "the list shapes has no item 1",
        "its items are shapes.0 to shapes.0",
        "--set shapes.1.frames=33: ",
        arguments=f"{R} --set shapes.1.frames=33",
        better=f"{R} --set shapes.0.frames=33",
    ),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recipes, models, and a home that has the models as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny-wan").symlink_to(ROOT / "models/tiny-wan")
    (tmp_path / "recipes/texts").mkdir(parents=True)
    write("recipes/base.yaml", "wanc: 1\n")()
    write("recipes/prompts.txt", "A red circle.\n")()
    write("recipes/texts/a.txt", "A red circle.\n")()
    write("recipes/encoder.py", "import torch\n\n\ndef build():\n    return torch.nn.Linear(4, 4)\n")()
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { y = Neg (x) }'
    )
    onnx.save(model, "recipes/graph.onnx")
    return tmp_path


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_placed_and_its_hint_works(name: str, project: Path, wanc: Wanc) -> None:
    case = MISTAKES[name]
    wrong, right = (text.replace("HOME", str(project)) for text in (case.wrong, case.right))
    assert not case.old or case.text.count(case.old) == 1
    Path(R).write_text(case.text.replace(case.old, wrong) if case.old else case.text)
    case.spoil()
    began = _cpu_seconds()
    finished = wanc("recipe", "check", *case.arguments.split(" ", 3))
    assert _cpu_seconds() - began < 1
    assert finished.code != 0 and finished.out == ""
    first, *_ = finished.err.splitlines()
    assert first.startswith(f"error: {case.place}"), finished.err
    assert case.said in finished.err
    assert case.hint.replace("HOME", str(project)) in finished.err.partition("hint: ")[2]
    if case.old:
        Path(R).write_text(case.text.replace(case.old, right))
    case.repair()
    finished = wanc("recipe", "check", *case.better.split(" ", 3))
    assert (finished.code, finished.err) == (0, "")


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for; others on the machine do not count."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) >= 25


def test_everything_is_said_at_once(project: Path, wanc: Wanc) -> None:
    """Each fault in full, those of the settings first: what a wrong setting names is not looked for."""
    text = INT8.replace("steps: 20", "stepz: 20").replace("height: 64", "height: 65").replace("int8", "int7")
    Path(R).write_text(text)
    finished = wanc("recipe", "check", R)
    assert [line.split(": ")[1] for line in finished.err.splitlines() if line.startswith("error: ")] == [
        f"{R}:6:25",
        f"{R}:8:3",
        f"{R}:12:11",
    ]
    Path(R).write_text(INT8.replace("tiny-wan", "tiny-van").replace("prompts.txt", "promts.txt"))
    finished = wanc("recipe", "check", R)
    assert [line.split(": ")[1] for line in finished.err.splitlines() if line.startswith("error: ")] == [
        f"{R}:4:11",
        f"{R}:13:24",
    ]


def test_programs_get_the_same(project: Path, wanc: Wanc) -> None:
    import json

    Path(R).write_text(RECIPE.replace("steps: 20", "stepz: 20"))
    finished = wanc("recipe", "check", R, "--json")
    document = json.loads(finished.out)
    assert (finished.code, finished.err, document["ok"], document["bundles"]) == (2, "", False, [])
    assert document["problems"][0] == {
        "message": "sampling has no key stepz",
        "where": f"{R}:8:3",
        "hint": "did you mean steps?",
        "text": f"error: {R}:8:3: sampling has no key stepz\nhint: did you mean steps?",
    }


def test_a_check_takes_a_second_and_loads_no_torch(project: Path) -> None:
    """All of tiny-wan: headers, prompts, patterns, and both variants."""
    Path(R).write_text(f"{INT8}matrix: {{a: {{}}, b: {{sampling.steps: 8}}}}\n")
    program = (
        "import resource, sys; from wanc import cli; sys.argv = ['wanc', 'recipe', 'check', sys.argv[1]]\n"
        "try:\n    cli.main()\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(used.ru_utime + used.ru_stime, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, R],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, measured = done.stdout.splitlines()
    assert said == "ok: mine-a, mine-b"
    seconds, loaded = measured.split()
    assert float(seconds) < 1 and loaded == "False"
