"""The lowering for OpenVINO: its passes in their order. To list them needs no engine."""

from __future__ import annotations

from wanc.compiler.engines.openvino.added_axes import ADDED_AXES
from wanc.compiler.engines.openvino.attention import WRITTEN_OUT
from wanc.compiler.engines.openvino.blocks import EVEN
from wanc.compiler.engines.openvino.dropouts import DROPOUTS
from wanc.compiler.engines.openvino.functions import FUNCTIONS
from wanc.compiler.engines.openvino.halves import HALVES
from wanc.compiler.engines.openvino.slices import SLICES
from wanc.compiler.engines.openvino.tile import TILES
from wanc.compiler.engines.openvino.whole_codes import WHOLE_CODES
from wanc.compiler.engines.ranks import RANKS
from wanc.compiler.passes.order import ordered

PASSES = ordered((FUNCTIONS, DROPOUTS, RANKS, HALVES, WRITTEN_OUT, SLICES, WHOLE_CODES, ADDED_AXES, EVEN, TILES))
