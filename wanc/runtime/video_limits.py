"""How large anything about a video can be: the same numbers for a recipe, a build and a bundle."""

from __future__ import annotations

MOST_POSITIONS = 1024
"""Per axis, of Wan's position table: a token is 2 x 2 latents of 8 x 8 pixels, and one latent frame."""
LARGEST_SIDE = MOST_POSITIONS * 16
MOST_FRAMES = (MOST_POSITIONS - 1) * 4 + 1
MOST_CHUNK_FRAMES = 64
"""Latent frames that a causal model makes together."""
MOST_CHUNKS = 1024
"""That it looks back at."""
LONGEST_TEXT = 512
MOST_CHANNELS = 1024
LARGEST_STRIDE = 64
# Latents are some units large: beyond these, float32 has no digits left for them.
LARGEST_MEAN = 1e6
STD_RANGE = (1e-6, 1e6)
SHIFT_RANGE = (1e-6, 1e6)
GUIDANCE_RANGE = (1, 1_000_000)
MOST_STEPS = 1000
MOST_FPS = 240
MOST_SHAPES = 64
FEWEST_TILE_POINTS = 4
"""Of latents, high and wide: tiles of fewer are mostly overlap."""
LARGEST_OVERLAP = 4
"""One part in so many of a tile: what is kept of tiles then takes no more disk than their pictures in float32."""
LARGEST_SEED = 2**63 - 1
