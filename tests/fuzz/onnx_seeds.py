"""Sound ONNX models to mutate: those of ONNX's own tests of operators, and some with what these lack."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Sequence

import onnx
import onnx.parser
from onnx.backend.test.case import node as node_tests

from wanc.models.onnx_interface import DTYPES

from ..models.test_onnx_file_fuzz import rich

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "ai.onnx.ml": 3]>'
OLDEST_OPSET = 7
# Operators whose inference has something to compute: shapes out of shapes, attributes, subgraphs, sequences.
OPERATORS = (
    "affinegrid", "attention", "bernoulli", "cast", "castlike", "center_crop_pad", "col2im", "compress", "concat",
    "constant", "constantofshape", "conv", "convtranspose", "deformconv", "depthtospace", "dft",
    "dynamicquantizelinear", "einsum", "expand", "eyelike", "flatten", "gather", "gatherelements", "gathernd",
    "gemm", "gridsample", "gru", "hannwindow", "identity", "if_", "loop", "lstm", "matmul", "matmulinteger",
    "maxunpool", "melweightmatrix", "nonmaxsuppression", "nonzero", "onehot", "optionalgetelement",
    "optionalhaselement", "pad", "qlinearconv", "quantizelinear", "rangeop", "reducesum", "reshape", "resize",
    "reversesequence", "rnn", "roialign", "rotaryembedding", "scan", "scatterelements", "scatternd", "sequence_map",
    "sequenceinsert", "shape", "size", "slice", "spacetodepth", "split", "splittosequence", "squeeze", "stft",
    "string_split", "stringnormalizer", "tensorscatter", "tfidfvectorizer", "tile", "topk", "transpose", "trilu",
    "unique", "unsqueeze", "upsample", "where",
)  # fmt: skip
LARGEST_SEED = 4096
# Chains, so that what one operator infers is what the next one gets.
CHAINS = (
    "g (float[n, 4] x) => (y) { s = Shape (x) c = ConstantOfShape (s) r = Reshape (c, s) y = Expand (r, s) }",
    "g (float[2, 3, 8] x, int64[1] k) => (y) <int64[1] one = {1}> {"
    " a, b = Split <axis = 2, num_outputs = 2> (x) s = Shape (a) t = Slice (s, one, k) u = Concat <axis = 0> (t, one)"
    " c = Reshape (b, u) y = Squeeze (c) }",
    "g (int64 n, float[n, 2] x) => (y) <int64 zero = {0}, int64 one = {1}> {"
    " r = Range (zero, n, one) g = Gather (x, r) f = Flatten (g) p = Unsqueeze (f, r) y = Tile (p, r) }",
    "g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (y) { c = Conv <pads = [1, 1, 1, 1]> (x, w)"
    " p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) a = GlobalAveragePool (p)"
    " f = Flatten (a) y = Softmax (f) }",
    "g (float[b, 8, 16] x) => (float[b, 8, 16] y) { m = com.microsoft.Gelu (x) y = LayerNormalization (m, m) }",
)


@functools.cache
def onnx_seeds() -> Sequence[bytes]:
    """Serialised models, each with its outputs declared and without; always the same in the same order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of overflows that are meant
        for operator in OPERATORS:
            importlib.import_module(f"{node_tests.__name__}.{operator}")
    cases = {case.name: case.model for case in node_tests._NodeTestCases}  # pyright: ignore[reportPrivateUsage]
    models = [model for name, model in sorted(cases.items()) if model is not None]
    models = [model for model in models if all(map(_is_taken, model.graph.input))]
    models = [rich(), *(onnx.parser.parse_model(f"{HEADER} {text}") for text in CHAINS), *models]
    return [data for model in models for data in _variants(model) if len(data) <= LARGEST_SEED]


def _is_taken(value: onnx.ValueInfoProto) -> bool:
    """Whether wanc takes an input of this type: of what it does not, mutants would be refused as well."""
    return value.type.tensor_type.elem_type in DTYPES


def _variants(model: onnx.ModelProto) -> list[bytes]:
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = max(entry.version, OLDEST_OPSET)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for output in bare.graph.output:
        output.ClearField("type")
    return [model.SerializeToString(), bare.SerializeToString()]
