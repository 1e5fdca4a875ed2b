"""What a causal expert keeps of finished chunks, and what it leaves of one, counted from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from wanc.compiler.kv_cache import seen_tokens
from wanc.compiler.planner.costs import ComponentCosts
from wanc.compiler.planner.count import PRECISE
from wanc.models.wan.facts import WanFacts
from wanc.recipe.schema import KeyValueCacheSection
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.kvcache import stored


def with_past(
    costs: ComponentCosts,
    config: Mapping[str, Any],
    cache: KeyValueCacheSection,
    facts: WanFacts,
    shape: ShapeSection,
) -> ComponentCosts:
    """The costs of an expert with the keys and values of what is seen in each block, and the bias before the first."""
    seen, heads = seen_tokens(cache, facts, shape), config["num_attention_heads"]
    channels = config["attention_head_dim"]
    sizes = [np.dtype(dtype).itemsize * size for _, dtype, size in stored(cache.precision, channels)]
    block, bias = 2 * seen * heads * sum(sizes), PRECISE * seen
    parts = (replace(part, kept=part.kept + block + (0 if index else bias)) for index, part in enumerate(costs.parts))
    new = 2 * (seen // (cache.sink + cache.window)) * heads * channels * PRECISE
    return replace(costs, parts=tuple(parts), left=len(costs.parts) * new)
