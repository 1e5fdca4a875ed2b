"""Training by distillation: the error falls, a killed run goes on to the same result, and what cannot be is refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch, an extra")

from wanc.artifacts.kept import forget_damaged  # noqa: E402
from wanc.calibration.distill import TrainingOutcome, TrainingPlan, distill  # noqa: E402
from wanc.calibration.fake_quantize import quantize_module  # noqa: E402
from wanc.calibration.lessons import Task  # noqa: E402
from wanc.calibration.trajectories import errors, guided_velocity  # noqa: E402
from wanc.errors import BundleError, OutputError, UserError  # noqa: E402

from .small_experts import LEVELS, SAMPLING, SmallExpert, decisions, equal, experts, requests  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = TrainingPlan(levels=LEVELS, learning_rate=2e-3, rounds=3, steps=60, batch=16, requests=128)


def task(trained: int = 0, **changes: Any) -> Task:
    teachers = experts()
    made = Task(
        teachers=teachers,
        others=teachers,
        trained=trained,
        decisions=decisions(teachers[trained]),
        sampling=SAMPLING,
        training=requests(512, seed=1),
        validation=requests(16, seed=2),
    )
    return dataclasses.replace(made, **changes)


def quantised(expert: SmallExpert, outcome: TrainingOutcome) -> SmallExpert:
    quantize_module(expert, outcome.decisions, levels=LEVELS)
    return expert.requires_grad_(False)


def final_error(pair: list[Any]) -> float:
    """On requests that no training has seen."""
    asked = requests(64, seed=3)
    return float(errors(SAMPLING.run(pair, asked), SAMPLING.run(experts(), asked))[-1].mean())


@pytest.mark.parametrize(
    ("trained", "activation_scale"),
    [(0, None), (1, 0.05), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 0.05), (1, None)))],
)
def test_the_error_falls(trained: int, activation_scale: float | None, tmp_path: Path) -> None:
    start = decisions(experts()[trained], activation_scale)
    asked = task(trained, decisions=start)
    outcome = distill(asked, PLAN, tmp_path / "state.safetensors")
    assert min(outcome.errors) < 0.6 * outcome.errors[0]
    before, after = experts(), experts()
    quantised(before[trained], TrainingOutcome(start, ()))
    quantised(after[trained], outcome)
    assert final_error(after) < 0.7 * final_error(before)
    assert all(each.activation_scale == activation_scale for each in outcome.decisions.values())


def test_both_experts_one_after_the_other(tmp_path: Path) -> None:
    pair, start = experts(), experts()
    for trained in (0, 1):
        quantised(start[trained], TrainingOutcome(decisions(experts()[trained]), ()))
        outcome = distill(task(trained, others=list(pair)), PLAN, tmp_path / f"{trained}.safetensors")
        quantised(pair[trained], outcome)
    assert final_error(pair) < 0.7 * final_error(start)


def test_the_low_noise_expert_is_trained_behind_the_quantised_one() -> None:
    """Its lessons begin where the other expert's run has ended."""
    high = quantised(experts()[0], TrainingOutcome(decisions(experts()[0]), ()))
    asked = task(1, others=[high, experts()[1]])
    lessons = asked.lessons(experts()[1], 0, 128, torch.ones(4))
    ended = SAMPLING.run([high, experts()[1]], asked.training[:64], stop=2).latents[2]
    torch.testing.assert_close(lessons.states.latents[:64], ended)


def test_half_of_the_lessons_come_from_the_student() -> None:
    """And in all of them it is the teacher who answers."""
    asked = task(0)
    student = quantised(experts()[0], TrainingOutcome(asked.decisions, ()))
    lessons = asked.lessons(student, 0, 128, torch.tensor([0.1, 0.9]))
    by_teacher = SAMPLING.run(asked.teachers, asked.training[:64], stop=2)
    by_student = SAMPLING.run([student, asked.teachers[1]], asked.training[64:128], stop=2)
    torch.testing.assert_close(lessons.states.latents, torch.cat([*by_teacher.latents[:2], *by_student.latents[:2]]))
    answers = guided_velocity(asked.teachers[0], lessons.states, SAMPLING.guidance[0])
    torch.testing.assert_close(lessons.targets, answers)
    torch.testing.assert_close(lessons.chances, torch.tensor(([0.1] * 64 + [0.9] * 64) * 2))


def test_requests_are_gone_through_again() -> None:
    lessons = task(training=requests(6)).lessons(experts()[0], 4, 4, torch.ones(2))
    torch.testing.assert_close(lessons.states.latents[:2], requests(6).noise[4:])
    torch.testing.assert_close(lessons.states.latents[4:6], requests(6).noise[:2])


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = distill(task(), PLAN, tmp_path / "undisturbed.safetensors")
    original = torch.optim.AdamW.step

    def killed_in_step(number: int) -> None:
        steps = itertools.count(1)

        def deadly(self: Any, *arguments: Any) -> Any:
            if next(steps) == number:
                raise KeyboardInterrupt
            return original(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", deadly)
            with pytest.raises(KeyboardInterrupt):
                distill(task(), PLAN, tmp_path / "killed.safetensors")

    killed_in_step(90)  # in the second round; the first is saved
    killed_in_step(1)
    killed_in_step(61)  # in the third round, once the second is done
    resumed = distill(task(), PLAN, tmp_path / "killed.safetensors")
    assert resumed.errors == undisturbed.errors
    assert equal(resumed.decisions, undisturbed.decisions)
    assert (tmp_path / "killed.safetensors").read_bytes() == (tmp_path / "undisturbed.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = distill(task(), PLAN, tmp_path / "state.safetensors")
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    again = distill(task(), PLAN, tmp_path / "state.safetensors")
    assert again.errors == once.errors and equal(again.decisions, once.decisions)


def test_training_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    """And then gives the best that there was: here, what it began with."""
    asked = task()
    plan = dataclasses.replace(PLAN, learning_rate=3.0, rounds=50, steps=5, patience=2)
    outcome = distill(asked, plan, tmp_path / "state.safetensors")
    assert len(outcome.errors) == 1 + 2 and min(outcome.errors) == outcome.errors[0]
    assert equal(outcome.decisions, asked.decisions)
    assert distill(asked, plan, tmp_path / "state.safetensors").errors == outcome.errors


def test_a_plan_of_one_seed_gives_one_result(tmp_path: Path) -> None:
    short = dataclasses.replace(PLAN, rounds=1)
    one, same, other = (
        distill(task(), dataclasses.replace(short, seed=seed), tmp_path / f"{number}.safetensors")
        for number, seed in enumerate((0, 0, 1))
    )
    assert one.errors == same.errors and equal(one.decisions, same.decisions)
    assert one.errors != other.errors


def test_teachers_are_left_as_they_are(tmp_path: Path) -> None:
    asked = task()
    distill(asked, dataclasses.replace(PLAN, rounds=1), tmp_path / "state.safetensors")
    for teacher, fresh in zip(asked.teachers, experts(), strict=True):
        torch.testing.assert_close(teacher.state_dict(), fresh.state_dict(), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    asked = task()
    asked.training.noise[:, 0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="the loss is nan in training step 0") as caught:
        distill(asked, PLAN, tmp_path / "state.safetensors")
    assert caught.value.hint is not None and "learning rate" in caught.value.hint


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no requests to train on"):
        task(training=requests(0))
    with pytest.raises(ValueError, match="no requests to validate on"):
        task(validation=requests(0))
    with pytest.raises(ValueError, match="nothing to train"):
        task(decisions={})
    with pytest.raises(ValueError, match="is no Linear"):
        distill(task(decisions={"third": task().decisions["first"]}), PLAN, Path("never-written"))


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0},
        {"steps": 0},
        {"batch": 0},
        {"requests": 1},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
    ],
    ids=str,
)
def test_a_plan_of_no_training_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"plan|rate"):
        dataclasses.replace(PLAN, **change)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [PLAN.rate(step) for step in range(PLAN.rounds * PLAN.steps)]
    assert max(rates) == pytest.approx(PLAN.learning_rate, rel=0.05)
    assert rates[0] < 0.1 * PLAN.learning_rate and rates[-1] < 1e-3 * PLAN.learning_rate


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    short = dataclasses.replace(PLAN, rounds=1)
    distill(task(), short, file)
    for asked, plan in (
        (task(), dataclasses.replace(short, learning_rate=1e-3)),
        (task(training=requests(512, seed=9)), short),
        (task(decisions=decisions(experts()[0], 0.1)), short),
    ):
        with pytest.raises(UserError, match="of another training run") as caught:
            distill(asked, plan, file)
        assert caught.value.where == str(file)


def test_a_checkpoint_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        distill(task(), dataclasses.replace(PLAN, rounds=1), tmp_path / "missing" / "state.safetensors")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(BundleError):
        distill(task(), PLAN, file)


@pytest.mark.parametrize("damage", ["a bit", "truncated"])
def test_a_state_that_is_not_what_was_kept_is_trained_anew(tmp_path: Path, damage: str) -> None:
    """A bit in a weight would read as a state like any other."""
    file, short = tmp_path / "state.safetensors", dataclasses.replace(PLAN, rounds=1)
    undisturbed = distill(task(), short, file)
    forget_damaged(file)
    assert file.exists(), "it is sound"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-4] if damage == "truncated" else data)
    forget_damaged(file)
    assert not file.exists()
    again = distill(task(), short, file)
    assert again.errors == undisturbed.errors and equal(again.decisions, undisturbed.decisions)
