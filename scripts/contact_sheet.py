"""A picture of videos: one row for each, every fourth frame.

Example: python scripts/contact_sheet.py docs/images/tiny-wan.png artifacts/demo/english.mp4 artifacts/demo/chinese.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

EVERY = 4
SCALE = 2
GAP = 4
WHITE = 255


def main(output: Path, videos: list[Path]) -> None:
    """Write the sheet as a PNG."""
    rows = [_row(video) for video in videos]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([_padded(row, width) for row in rows])
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet)
    picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST).save(output)


def _row(video: Path) -> NDArray[np.uint8]:
    """Frames side by side, uint8 [height + gap, width, 3]."""
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][::EVERY]
    spaced = [np.pad(frame, ((0, GAP), (0, GAP), (0, 0)), constant_values=WHITE) for frame in frames]
    return np.concatenate(spaced, axis=1).astype(np.uint8)


def _padded(row: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=WHITE)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
