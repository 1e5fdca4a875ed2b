"""Training on tiny-wan, in minutes: it must beat the best quantisation without training, of both schemes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch, an extra")
pytest.importorskip("diffusers", reason="tiny-wan's experts need diffusers, an extra")

from scripts import qat_tiny_wan
from scripts.tiny_wan import quantization
from scripts.tiny_wan.quantization import Method, Scheme

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "tiny-wan"
SIZES = qat_tiny_wan.Sizes(calibration=8, training=64, validation=8, test=16)
ERROR = {"final": 2e-3, "along": 1e-3, "typical": 5e-4}


# The geometric mean over few requests is steadier than the mean, which one run that tips over decides.
@pytest.mark.timeout(1800)  # three minutes of processor time, on a machine that may do much else
@pytest.mark.parametrize(
    ("scheme", "method", "most"),
    [
        pytest.param("int4-weight", Method("moments"), 0.9, marks=pytest.mark.long),
        pytest.param("int8", Method("nearest", "absmax"), 1.0, marks=pytest.mark.long),
    ],
)
def test_training_lowers_the_error(scheme: Scheme, method: Method, most: float, tmp_path: Path) -> None:
    bench = qat_tiny_wan.Bench(MODEL, SIZES)
    observed = quantization.observe(
        bench.teachers, scheme, lambda: bench.sampling.run(bench.teachers, bench.calibration)
    )
    start = [quantization.decide(expert, scheme, method) for expert in observed]
    trained, _ = qat_tiny_wan.train(bench, scheme, start, 2, tmp_path)
    before, after = bench.error(start, scheme), bench.error(trained, scheme)
    assert after.typical < most * before.typical
    # What is shared by Linears of one input is what it was.
    for one, other in zip(start, trained, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].activation_scale == other[name].activation_scale for name in one)


def test_the_report_has_a_row_for_every_method() -> None:
    figures = {
        "after_training": {"nearest": {**ERROR, "final": 4e-3}, "moments": ERROR},
        "best_after_training": "moments",
        "with_training": {name: value / 2 for name, value in ERROR.items()},
        "reduction": dict.fromkeys(ERROR, 0.5),
        "rounds": 7,
        "training_seconds": {"wall": 600.0, "processor": 300.0},
        "threads": 2,
    }
    page = qat_tiny_wan.report({"int4-weight": figures}, SIZES)
    assert "| int4-weight | after training: nearest | 4.00e-03 | 1.00e-03 | 5.00e-04 |" in page
    assert "| int4-weight | with training | 1.00e-03 | 5.00e-04 | 2.50e-04 |" in page
    assert "| int4-weight | against `moments` | -50% | -50% | -50% |" in page
    assert "10 minutes for both experts together on 2 thread(s), 5 of processor time" in page


def test_all_linears_of_the_blocks_are_quantised() -> None:
    (high, _) = quantization.load_experts(MODEL)
    linears = [name for name, module in high.named_modules() if isinstance(module, qat_tiny_wan.torch.nn.Linear)]
    shared = [f"blocks.{block}.{name}" for block in range(5) for names in quantization.SHARING for name in names]
    assert sorted(shared) == sorted(name for name in linears if name.startswith("blocks."))


def test_help_shows_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["qat_tiny_wan.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        qat_tiny_wan.main()
    assert ended.value.code == 0
    assert "python -m scripts.qat_tiny_wan" in capsys.readouterr().out
