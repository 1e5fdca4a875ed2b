"""Which Linears stay in float by what quantising them does to the result: two rules for one list.

An effect is a squared error. Those of different Linears add up: roundings know nothing of each other. Of equals the
first by name goes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def kept_by_drop(effects: Mapping[str, float], max_drop_db: float, result: str = "the final latents") -> dict[str, str]:
    """Those without which the error of all would be so many dB smaller, the worst first, each with the reason.

    What is kept no longer counts for those that follow: so a list of equals is empty, and a few that stand out are not.
    """
    left, kept = dict(effects), dict[str, str]()
    while len(left) > 1:
        worst = min(left, key=lambda name: (-left[name], name))
        total = math.fsum(left.values())
        rest = total - left[worst]
        drop = 10 * math.log10(total / rest) if rest > 0 else math.inf if total > 0 else 0.0
        if drop <= max_drop_db:
            break
        kept[worst] = f"costs {drop:.2f} dB of {result}, more than max_drop_db {max_drop_db:g}"
        del left[worst]
    return kept


def kept_by_share(effects: Mapping[str, float], flops: Mapping[str, float], share: float) -> dict[str, str]:
    """The worst for their FLOPs, as long as the others have this share of all Linears' FLOPs, each with the reason.

    `flops` has the share of every Linear, those that stay in float anyway included; `effects` the others.
    """
    quantized, kept = math.fsum(flops[name] for name in effects), dict[str, str]()
    for name in sorted(effects, key=lambda name: (-effects[name] / flops[name], name)):
        if effects[name] > 0 and quantized - flops[name] >= share:
            quantized -= flops[name]
            kept[name] = f"is among the worst for its FLOPs; the others still have {quantized:.1%} of all"
    return kept
