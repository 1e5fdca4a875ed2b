"""The VAE of Wan 2.1 at its true size decodes 720 x 1280 pixels within 4 GiB, tile by tile."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.true_scale.decoder import measured

GIB = 2**30
pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("fresh_stages"), pytest.mark.long]


def test_720p_is_decoded_within_four_gib(tmp_path: Path) -> None:
    row = measured(tmp_path, "onnxruntime", (720, 1280), budget=4 * GIB)
    print(row)
    assert row["tiles"] > 4 and row["peak_rss_bytes"] < 4 * GIB
    assert row["predicted_bytes"] == pytest.approx(row["peak_rss_bytes"], rel=0.1)
    assert row["peak_rss_bytes"] - row["first_tile_bytes"] < GIB / 16, "tiles leave something behind"
    assert row["disk_bytes"] <= 4 * 5 * 3 * 720 * 1280


@pytest.mark.parametrize("side", [128, 192])
def test_tiles_take_what_was_predicted(side: int, tmp_path: Path) -> None:
    row = measured(tmp_path, "onnxruntime", (side, side + 80), tile=side)
    assert row["predicted_bytes"] == pytest.approx(row["peak_rss_bytes"], rel=0.1)
