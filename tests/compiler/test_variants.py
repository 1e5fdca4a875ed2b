"""Variants of a matrix: looked at together, chosen by name, built one after the other; and whose bundle gives way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

import wanc as package
from wanc.compiler.variants import VariantsError
from wanc.errors import CheckpointError
from wanc.runtime.manifest import Manifest

from ..conftest import Wanc

GRAPH = '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 4] x) => (float[n, 4] y) { y = MatMul (x, w) }'
RECIPE = """\
wanc: 1
name: graph
model:
  onnx: model.onnx
  example: {n: 3}
"""
# They differ in what only the seal depends on, so that all but the first cost little.
MATRIX = "matrix:\n  one: {}\n  two: {version: 0.2.0}\n  three: {version: 0.3.0}\n"
LOST = MATRIX.replace("{version: 0.3.0}", "{model.onnx: modle.onnx}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model; `out` in it is where all of these tests build."""
    folder = tmp_path_factory.mktemp("variants")
    model = onnx.parser.parse_model(GRAPH)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def write(file: str, text: str = RECIPE, *, name: str) -> str:
    Path(file).write_text(text.replace("name: graph", f"name: {name}"))
    return file


def bundle_id(name: str, output: str = "out") -> str:
    return Manifest.read(Path(output, "bundles", name)).id


# Variants


def test_a_matrix_is_checked_whole_before_anything_is_built(wanc: Wanc) -> None:
    recipe = write("lost.yaml", RECIPE + LOST, name="lost")
    finished = wanc("build", recipe, "-o", "out")
    assert (finished.code, finished.out) == (66, "")
    assert finished.err.startswith("error: lost.yaml:9:23: the model cannot be read\n")
    assert finished.err.endswith("hint: did you mean model.onnx?\n")
    assert not list(Path("out/bundles").glob("lost*"))
    with pytest.raises(CheckpointError):
        package.build_variants(recipe, output="out")


def test_a_matrix_with_two_faults_tells_both(wanc: Wanc) -> None:
    recipe = write("two.yaml", RECIPE + LOST.replace("{}", "{model.example.m: 3}"), name="two")
    finished = wanc("build", recipe, "-o", "out")
    assert finished.err.startswith("error: two.yaml:7:26: model.example names 'm', which is no size of the model\n")
    assert "  also two.yaml:9:23: the model cannot be read (did you mean model.onnx?)\n" in finished.err


def test_one_that_fails_does_not_stop_the_others(wanc: Wanc) -> None:
    recipe = write("going.yaml", RECIPE + LOST, name="going")
    finished = wanc("build", recipe, "-o", "out", "--keep-going")
    assert finished.code == 66
    head, *rows = finished.out.partition("variants\n")[2].splitlines()
    assert head.split() == ["variant", "id", "seconds", "cached", "stages", "bundle"]
    one, two, three = (row.split() for row in rows)
    assert (one[0], one[1], one[-1]) == ("one", bundle_id("going-one"), "out/bundles/going-one")
    assert (two[0], two[1], two[-1]) == ("two", bundle_id("going-two"), "out/bundles/going-two")
    assert two[3:6] == ["6", "of", "7"], "only the seal is another one's"
    assert three[:3] == ["three", "not", "built"]
    assert finished.err.endswith(
        "error: going.yaml: 1 of 3 variants were not built: three\n"
        "hint: what the others have finished is kept: mend these, and build again\n"
    )
    finished = wanc("build", recipe, "-o", "out", "--keep-going", "--json")
    reports = json.loads(finished.out)
    assert [report["variant"] for report in reports] == ["one", "two", "three"]
    assert [report.get("id") for report in reports] == [bundle_id("going-one"), bundle_id("going-two"), None]
    assert reports[2]["error"].startswith("error: going.yaml:9:23: the model cannot be read\n")
    with pytest.raises(VariantsError) as caught:
        package.build_variants(recipe, output="out", keep_going=True)
    assert [entry.result is None for entry in caught.value.builds] == [False, False, True]


def test_variants_are_chosen_by_name(wanc: Wanc) -> None:
    recipe = write("chosen.yaml", RECIPE + MATRIX, name="chosen")
    finished = wanc("build", recipe, "-o", "out", "--variant", "three", "--variant", "one", "--json")
    assert [report["variant"] for report in json.loads(finished.out)] == ["one", "three"]
    assert not Path("out/bundles/chosen-two").exists()
    assert package.build(recipe, output="out", variant="two").id == bundle_id("chosen-two")
    (three,) = package.build_variants(recipe, output="out", variants=["three"])
    assert three.id == bundle_id("chosen-three")


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        (RECIPE + MATRIX, "tow", "did you mean two? its variants are one, two, three"),
        (RECIPE + MATRIX, "fast", "its variants are one, two, three"),
        (RECIPE, "one", "leave --variant out, or write a `matrix`"),
    ],
)
def test_a_variant_that_there_is_not(text: str, name: str, hint: str, wanc: Wanc) -> None:
    recipe = write("absent.yaml", text, name="absent")
    finished = wanc("build", recipe, "-o", "out", "--variant", name)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == f"error: absent.yaml: the recipe has no variant {name}\nhint: {hint}\n"


# Whose bundle gives way


def test_a_recipe_that_was_changed_replaces_its_own_bundle(wanc: Wanc) -> None:
    recipe = write("own.yaml", name="own")
    assert wanc("build", recipe, "-o", "out").code == 0
    before = bundle_id("own")
    write("own.yaml", name="own\nversion: 0.2.0")
    finished = wanc("build", recipe, "-o", "out")
    after = bundle_id("own")
    assert finished.code == 0 and after != before
    assert finished.err.endswith(f"out/bundles/own: {after} in place of {before}\n")
    assert "in place of" not in wanc("build", recipe, "-o", "out").err, "nothing was replaced"
    # One value of the command line is a change of one's own as well.
    assert wanc("build", recipe, "-o", "out", "--set", "version=0.3.0").code == 0


def test_the_bundle_of_another_recipe_stays_unless_it_is_told_to_go(wanc: Wanc) -> None:
    first, second = write("first.yaml", name="shared"), write("second.yaml", name="shared")
    assert wanc("build", first, "-o", "out").code == 0
    before = bundle_id("shared")
    # The same recipe in another file makes the very same bundle, and does not come to own it.
    assert (wanc("build", second, "-o", "out").code, bundle_id("shared")) == (0, before)
    write("second.yaml", name="shared\nversion: 0.2.0")
    finished = wanc("build", second, "-o", "out")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        f"error: out/bundles/shared: the bundle of {Path('first.yaml').resolve()} stands here, and would be replaced\n"
        "hint: give this one another name, with `name:` or --set name=…, or say --replace\n"
    )
    assert bundle_id("shared") == before
    finished = wanc("build", second, "-o", "out", "--replace")
    assert finished.code == 0
    assert finished.err.endswith(f"out/bundles/shared: {bundle_id('shared')} in place of {before}\n")
    assert wanc("build", first, "-o", "out").code == 2, "now it is the second one's"
    assert wanc("build", first, "-o", "out", "--set", "name=another").code == 0, "as the hint says"


def test_the_bundle_of_another_store_stays_unless_it_is_told_to_go(wanc: Wanc) -> None:
    recipe = write("store.yaml", name="stored")
    assert wanc("build", recipe, "-o", "out").code == 0
    before = bundle_id("stored")
    shutil.rmtree("other", ignore_errors=True)
    shutil.copytree("out/bundles/stored", "other/bundles/stored")
    write("store.yaml", name="stored\nversion: 0.2.0")
    finished = wanc("build", recipe, "-o", "other")
    assert (finished.code, bundle_id("stored", "other")) == (2, before)
    assert "other/bundles/stored: a bundle that this store has not sealed stands here" in finished.err
    assert wanc("build", recipe, "-o", "other", "--replace").code == 0
    assert bundle_id("stored", "other") != before
