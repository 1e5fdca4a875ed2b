"""What a graph means stays: text in, executed by plain onnxruntime as it is, and fused and lowered by all passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.compiler.engines.kernels import check_fused
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.packed import PACKED
from wanc.compiler.engines.onnxruntime.passes import PASSES
from wanc.compiler.engines.openvino.passes import PASSES as OPENVINO
from wanc.compiler.passes.apply import PassError, apply_passes
from wanc.compiler.passes.draws import draws
from wanc.compiler.passes.fold import COMPUTED
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.runtime.backends.onnxruntime import session_options

from .builder import parse as parsed
from .builder import run, text

DEFAULT = [entry for entry in all_passes() if entry.by_default]
LOWEST = np.finfo(np.float32).min
Feeds = dict[str, np.ndarray]


def parse(body: str, opset: int = 23) -> ir.Model:
    version = 13 if opset > 23 else 11
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}]> {body}'))


def fused_and_lowered(model: ir.Model) -> tuple[ir.Model, ir.Model]:
    """As `fuse` leaves it, and as the engine takes it."""
    canonical = model.clone()
    apply_passes(canonical, DEFAULT, where="part/graph")
    lowered = canonical.clone()
    apply_passes(lowered, PASSES, where="part/graph")
    return canonical, lowered


def same(model: ir.Model, *given: Feeds, tolerance: float = 2e-6) -> tuple[ir.Model, ir.Model]:
    """Shapes, dtypes and values of everything that the graph gives, NaNs among them."""
    canonical, lowered = fused_and_lowered(model)
    for feeds in given:
        expected, actual = run(model, feeds), run(lowered, feeds)
        assert list(actual) == list(expected)
        for name, array in expected.items():
            assert (actual[name].shape, actual[name].dtype) == (array.shape, array.dtype), name
            np.testing.assert_allclose(
                actual[name], array, rtol=0, atol=tolerance * max(1, np.nanmax(np.abs(array), initial=0))
            )
    return canonical, lowered


def noise(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(list(shape)).normal(size=shape).astype(dtype)


# One element is a scalar only where the result keeps its rank


RANKS = {
    "gelu": "g (float[n] x) => (float[a, n] y) <float r = {0.70710678}, float[1, 1] one = {1},"
    " float[1, 1] half = {0.5}> { e = Mul (x, r) f = Erf (e) p = Add (f, one) q = Mul (x, p) y = Mul (q, half) }",
    "silu": "g (float[n] x) => (float[a, n] y) <float[1, 1] one = {1}>"
    " { m = Neg (x) e = Exp (m) p = Add (e, one) y = Div (x, p) }",
    "layer norm": "g (float[n, 4] x) => (float[a, n, 4] y) <float[1, 1, 1] eps = {0.00001}, float[4] s = {1, 2, 3, 4},"
    " float[4] b = {0, 1, 0, 1}, int64[1] ax = {-1}, float two = {2}> { mu = ReduceMean (x, ax) c = Sub (x, mu)"
    " c2 = Pow (c, two) v = ReduceMean (c2, ax) ve = Add (v, eps) sd = Sqrt (ve) d = Div (c, sd) ds = Mul (d, s)"
    " y = Add (ds, b) }",
    "root mean square": "g (float[n, 4] x) => (float[a, n, 4] y) <float[1, 1, 1] eps = {0.00001},"
    " float[4] s = {1, 2, 3, 4}, int64[1] ax = {-1}, float two = {2}> { p = Pow (x, two) m = ReduceMean (p, ax)"
    " e = Add (m, eps) q = Sqrt (e) i = Reciprocal (q) r = Mul (x, i) y = Mul (r, s) }",
    "scale": "g (float[1, 2, n, 4] x) => (float[a, 1, 2, n, 4] y) <float[1, 1, 1, 1, 1] c = {0.5}>"
    " { t = Transpose <perm = [0, 1, 3, 2]> (x) m = MatMul (x, t) a1 = Mul (m, c) w = Softmax (a1) y = MatMul (w, x) }",
    "size": "g (float[n, 4] x) => (int64[a, b] y) <int64[1, 1] one = {1}> { s = Shape (x) y = Gather (s, one) }",
}  # fmt: skip


@pytest.mark.parametrize("name", RANKS)
def test_constants_of_more_axes_give_them_to_the_result(name: str) -> None:
    shapes = {"gelu": (3,), "silu": (3,), "scale": (1, 2, 3, 4)}
    same(parse(RANKS[name]), {"x": noise(*shapes.get(name, (3, 4)))})


@pytest.mark.parametrize("name", ["layer norm", "root mean square", "gelu"])
def test_onnxruntimes_own_optimiser_takes_no_axes(name: str) -> None:
    model = parse(RANKS[name])
    _, lowered = fused_and_lowered(model)
    feeds = {"x": noise(*{"gelu": (3,)}.get(name, (3, 4)))}
    session = onnxruntime.InferenceSession(ir.to_proto(lowered).SerializeToString(), session_options(threads=1))
    (actual,) = session.run(None, feeds)
    np.testing.assert_allclose(actual, run(model, feeds)["y"], atol=1e-6, strict=True)


def test_constants_of_fewer_axes_are_scalars() -> None:
    model = parse(RANKS["gelu"].replace("float[n] x", "float[n, 4] x").replace("[a, n] y", "[n, 4] y"))
    canonical, _ = same(model, {"x": noise(3, 4)})
    assert [node.op_type for node in canonical.graph] == ["Gelu"]


# Draws


DRAWS = {
    "Dropout": "a = Dropout (x, r, t) b = Dropout (x, r, t)",
    "RandomUniformLike": "a = RandomUniformLike (x) b = RandomUniformLike (x)",
    "RandomNormal": "a = RandomNormal <shape = [64]> () b = RandomNormal <shape = [64]> ()",
    "Bernoulli": "h = Mul (x, r) a = Bernoulli (h) b = Bernoulli (h)",
    "of constants": "p = Expand (r, n) a = Bernoulli (p) b = Bernoulli (p)",
    "Multinomial": "e = Expand (r, m) c = Multinomial <sample_size = 64> (e) d = Multinomial <sample_size = 64> (e)"
    " f = Cast <to = 1> (c) g2 = Cast <to = 1> (d) a = Reshape (f, n) b = Reshape (g2, n)",
}


@pytest.mark.parametrize("name", DRAWS)
def test_two_draws_stay_two(name: str) -> None:
    model = parse(
        f"g (float[64] x) => (float[64] y) <float r = {{0.5}}, bool t = {{1}}, int64[1] n = {{64}},"
        " int64[2] m = {1, 2}>"
        f" {{ {DRAWS[name]} y = Sub (a, b) }}", 21,
    )  # fmt: skip
    _, lowered = fused_and_lowered(model)
    assert len(draws(lowered)) == 2
    assert run(lowered, {"x": np.ones(64, np.float32)})["y"].any()


def test_what_draws_inside_of_a_function_stays_two() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 22, "local" : 1]> g (float[64] x) => (float[64] y)'
        " { a = local.Noisy (x) b = local.Noisy (x) c = local.Plain (x) d = local.Plain (x) e = Sub (a, b)"
        " f = Add (c, d) y = Add (e, f) }"
        ' <domain: "local", opset_import: ["" : 22, "local" : 1]> Noisy (x) => (y) { y = local.Inner (x) }'
        ' <domain: "local", opset_import: ["" : 22]> Inner (x) => (y) { n = RandomNormalLike (x) y = Add (n, x) }'
        ' <domain: "local", opset_import: ["" : 22]> Plain (x) => (y) { y = Neg (x) }'
    )
    model = ir.from_proto(proto)
    _, lowered = fused_and_lowered(model)
    calls = [node.op_type for node in lowered.graph if node.domain == "local"]
    assert (calls.count("Noisy"), calls.count("Plain")) == (2, 1)


# Sizes of 0


EMPTY = {
    "flatten": ("g (float[n, a, b] x) => (float[n, q] y) <int64[1] z = {0}, int64[1] one = {1}, int64[1] two = {2}>"
    " { s = Shape (x) n0 = Gather (s, z) a0 = Gather (s, one) b0 = Gather (s, two) ab = Mul (a0, b0)"
    " t = Concat <axis = 0> (n0, ab) y = Reshape (x, t) }", [(0, 3, 4), (2, 3, 4), (2, 0, 4)]),
    "split heads": ("g (float[n, s, 8] x) => (float[n, s, h, 4] y) <int64[1] z = {0}, int64[1] one = {1},"
    " int64[2] tail = {-1, 4}> { f = Shape (x) n0 = Gather (f, z) s0 = Gather (f, one)"
    " t = Concat <axis = 0> (n0, s0, tail) y = Reshape (x, t) }", [(2, 3, 8), (1, 5, 8)]),
    "a copied size": ("g (float[n, s, 8] x) => (float[n, k] y) <int64[1] z = {0}, int64[1] one = {1}, int64[1] e = {8}>"
    " { f = Shape (x) n0 = Gather (f, z) s0 = Gather (f, one) k0 = Mul (s0, e) t = Concat <axis = 0> (n0, k0)"
    " r = Reshape (x, t) y = Neg (r) }", [(0, 3, 8), (2, 0, 8), (2, 3, 8)]),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_is_reshaped_to_nothing(name: str) -> None:
    body, shapes = EMPTY[name]
    same(parse(body, 18), *({"x": noise(*shape)} for shape in shapes))


# Attention


ATTENTION = (
    "g (T[b, 2, s, 4] q, T[b, 2, t, 4] k, T[b, 2, t, 4] v MASK) => (T[b, 2, s, 4] y) <T c = {0.5}>"
    " { kt = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul (q, kt) a1 = Mul (a, c) ADDED w = Softmax <axis = -1> (a2)"
    " y = MatMul (w, v) }"
)


def attention(mask: str = "", dtype: str = "float", opset: int = 23) -> ir.Model:
    body = (
        ATTENTION.replace("MASK", f", {mask}" if mask else "").replace("T[", f"{dtype}[").replace("<T ", f"<{dtype} ")
    )
    added = "a2 = Add (a1, mask)" if mask else ""
    return parse(body.replace("ADDED", added) if mask else body.replace("ADDED", "").replace("(a2)", "(a1)"), opset)


def projections(s: int = 3, t: int = 5, dtype: str = "float32") -> Feeds:
    return {
        "q": noise(1, 2, s, 4, dtype=dtype),
        "k": noise(1, 2, t, 4, dtype=dtype),
        "v": noise(1, 2, t + 0, 4, dtype=dtype),
    }


@pytest.mark.parametrize(
    ("dtype", "opset"), [("float", 25), ("double", 23), ("double", 18), ("double", 25), ("float", 24)]
)
def test_attention_is_made_where_there_is_a_kernel_for_it(dtype: str, opset: int) -> None:
    """In opset 25 and in float64 there is none, and it stays written out."""
    feeds = projections(dtype={"float": "float32", "double": "float64"}[dtype])
    canonical, _ = same(attention(dtype=dtype, opset=opset), feeds)
    made = [node for node in canonical.graph if node.op_type == "Attention"]
    assert len(made) == (dtype == "float" and opset <= 24)


def rows(fill: float, *other: tuple[int, int, float], rest: float = 0.0) -> np.ndarray:
    """A mask whose first two queries may look at no key."""
    mask = np.full((1, 1, 3, 5), rest, np.float32)
    mask[:, :, :2] = fill
    for row, column, value in other:
        mask[0, 0, row, column] = value
    return mask


MASKS = {
    "of the least value": rows(LOWEST),
    "of infinities": rows(-np.inf),
    "of both": rows(LOWEST, (0, 1, -np.inf)),
    "of infinities but one": rows(-np.inf, (0, 1, LOWEST)),
    "of large values": rows(-1e30),
    "of infinities, and some keys": rows(-np.inf, (0, 2, 0.0), (1, 4, 0.5)),
    "nowhere": rows(0.25),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_query_that_may_look_at_no_key_gives_what_the_softmax_gives(name: str) -> None:
    model = attention("float[b, 1, s, t] mask")
    canonical, lowered = same(model, {**projections(), "mask": MASKS[name]})
    assert [node.op_type for node in canonical.graph] == ["Attention"]
    assert "Attention" in {node.op_type for node in lowered.graph}, "in one kernel all the same"


def test_a_mask_that_is_known_to_hide_nothing_stays_as_it_is() -> None:
    model = attention("float[b, 1, s, t] mask")
    value = next(value for value in model.graph.inputs if value.name == "mask")
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(rows(0.0, (0, 1, -np.inf)), name="mask")
    value.shape = ir.Shape([1, 1, 3, 5])
    model.graph.register_initializer(value)
    for entry in model.graph.inputs:
        entry.shape = ir.Shape([1, 2, 3 if entry.name == "q" else 5, 4])
    _, lowered = same(model, projections())
    assert [node.op_type for node in lowered.graph] == ["Attention"]


OWN = (
    "g (float[b, 2, s, 4] q, float[b, 2, t, 4] k, float[b, 2, t, 4] v M) => (float[b, s, 2, 4] y)"
    " { o = A y = Transpose <perm = [0, 2, 1, 3]> (o) }"
)


def own(call: str, opset: int = 25, mask: str = "") -> ir.Model:
    return parse(OWN.replace(" M)", f", {mask})" if mask else ")").replace("A y", f"{call} y"), opset)


@pytest.mark.parametrize(
    "call",
    [
        "Attention <left_window_size = 1, right_window_size = 1> (q, k, v)",
        "Attention <left_window_size = 0> (q, k, v)",
        "Attention <right_window_size = 2, scale = 0.25> (q, k, v)",
        "Attention (q, k, v)",
    ],
)
def test_an_attention_of_the_models_own_is_what_it_was(call: str) -> None:
    """Also where there is no kernel for its form: then nobody asks for one."""
    model = own(call)
    canonical, lowered = same(model, projections(s=6, t=6))
    assert ("window" in call) == ("Attention" in {node.op_type for node in lowered.graph})
    kernels = type("None", (), {"fused": {"Attention": int("window" not in call)}})
    check_fused("part/graph", canonical, kernels, (), OnnxRuntimeCompiler().has_kernel)  # type: ignore[arg-type]


def test_zeros_that_a_model_asked_for_stay() -> None:
    """Its own Attention, in a version with a kernel, gives zeros to who may look at nothing."""
    model = own("Attention (q, k, v, mask)", 23, "float[b, 1, s, t] mask")
    same(model, {**projections(), "mask": rows(LOWEST)})


@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (1, 1, 3, 1), (1, 5), (1, 1, 1, 1)])
def test_a_mask_of_one_row_is_stretched(shape: tuple[int, ...]) -> None:
    """onnxruntime's kernel does not; ONNX does."""
    sizes = ", ".join({3: "s", 5: "t"}.get(size, str(size)) for size in shape)
    mask = noise(*shape)
    _, lowered = fused_and_lowered(own("Attention (q, k, v, mask)", 23, f"float[{sizes}] mask"))
    expected = run(attention(f"float[{sizes}] mask"), {**projections(), "mask": mask})["y"].transpose(0, 2, 1, 3)
    actual = run(lowered, {**projections(), "mask": mask})["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


# What wanc computes, and operators of its own


@pytest.mark.parametrize(
    "body",
    [
        "t = Trilu <upper = 0> (o) c = Cast <to = 9> (t) mask = Where (c, z, inf) y = Add (x, mask)",
        "t = Trilu <upper = 0> (o) mask = Log (t) y = Add (x, mask)",
        "t = Trilu <upper = 0> (o) n = Sub (t, o) mask = Div (n, z) y = Max (x, mask)",
    ],
    ids=["Where", "Log", "Div"],
)
def test_infinities_that_are_computed_are_marked(body: str) -> None:
    model = parse(
        "g (float[n, 2, 2] x) => (float[n, 2, 2] y) <float[2, 2] o = {1, 1, 1, 1}, float z = {0}, float inf = {0}>"
        f" {{ {body} }}",
        18,
    )
    model.graph.initializers["inf"].const_value = ir.tensor(np.float32(-np.inf), name="inf")
    canonical, _ = fused_and_lowered(model)
    made = [value.const_value for value in canonical.graph.initializers.values() if value.const_value is not None]
    infinite = [tensor for tensor in made if not np.isfinite(tensor.numpy()).all()]
    assert infinite and all(COMPUTED in tensor.metadata_props for tensor in infinite)


def test_nothing_is_computed_of_a_damaged_weight() -> None:
    model = parsed(
        "g (float[4] x) => (float[4] y) { c = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () s = Add (c, c)"
        " y = Add (x, s) }"
    )
    (constant,) = [node for node in model.graph if node.op_type == "Constant"]
    constant.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array([1, np.nan, np.inf, 4], np.float32)))
    del constant.attributes["value_floats"]
    canonical, _ = fused_and_lowered(model)
    assert text(canonical)[0].startswith("v0 = Add([")


def small_head(rest: str = "") -> ir.Model:
    return parsed(
        f"g (float[n, 32] x, int8[3, 32] w, float[3] s) => (float[n, 3] y{', float[n, 32] z' if rest else ''})"
        f" {{ d = DequantizeLinear <axis = 0> (w, s) t = Transpose <perm = [1, 0]> (d) y = MatMul (x, t) {rest} }}",
        "w",
    )


def test_codes_that_something_else_uses_are_not_packed() -> None:
    """Packed they would not be what that takes, and the operator would be left for no engine to execute."""
    i = "i = Constant <value_ints = [0]> ()"
    for rest in (f"{i} z = Gather (d, i)", f"{i} e = Gather (w, i) z = Cast <to = 1> (e)"):
        model = small_head(rest)
        apply_passes(model, [PACKED], where="part/graph")
        assert not [node for node in model.graph.all_nodes() if node.domain == "wanc"]


def test_an_operator_that_no_engine_has_may_not_be_left() -> None:
    def plant(model: ir.Model) -> PassOutcome:
        found = [node for node in model.graph if node.op_type == "Cos"]
        for node in found:
            node.op_type, node.domain = "Pack", "wanc"
            model.graph.opset_imports["wanc"] = 1
        return PassOutcome(len(found))

    model = parse("g (float[n, 4] x) => (float[n, 4] y) { a = Cos (x) y = Sin (a) }")
    with pytest.raises(PassError, match=r"the pass planted made part/graph invalid: .*Pack"):
        apply_passes(model, [Pass("planted", "", plant)], where="part/graph")


# Opsets


def test_every_pass_says_from_which_opset_on_it_can_be_used() -> None:
    assert [entry.name for entry in (*all_passes(), *PASSES, *OPENVINO) if not entry.opset] == []


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("shape", [(1, 2, 5, 6, 7), (1, 2, 3, 4, 4)])
def test_convolutions_of_videos_in_old_opsets(opset: int, shape: tuple[int, ...]) -> None:
    sizes = ", ".join(map(str, shape))
    model = parse(
        f"g (float[{sizes}] x, float[3, 2, 3, 3, 3] w) => (float[1, 3, a, b, c] y)"
        " { y = Conv <pads = [0, 1, 1, 0, 1, 1]> (x, w) }",
        opset,
    )
    same(model, {"x": noise(*shape), "w": noise(3, 2, 3, 3, 3)}, tolerance=1e-5)


SILU: dict[str, Callable[[str], str]] = {
    "silu": lambda c: f"e = Sigmoid (x) y = Mul (x, e) {c}",
    "two reshapes": lambda c: f"{c} r = Reshape (x, s) y = Reshape (r, t)",
}


@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("name", SILU)
def test_small_graphs_of_old_opsets(name: str, opset: int) -> None:
    body = SILU[name]("")
    same(
        parse(
            f"g (float[n, 4] x) => (float[n, 4] y) <int64[2] s = {{-1, 2}}, int64[2] t = {{-1, 4}}> {{ {body} }}", opset
        ),
        {"x": noise(3, 4)},
    )
