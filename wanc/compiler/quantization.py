"""What quantising a recipe's denoisers takes, stage by stage: texts, then for each expert trajectories and decisions.

The high-noise expert comes first. The low-noise one never sees what the float model would have given it, but what the
quantised high-noise one leaves: so it is calibrated behind that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wanc.compiler.calibrate import Calibrate, Trajectory
from wanc.compiler.keep_patterns import check_patterns
from wanc.compiler.program import FILE, Program
from wanc.compiler.quantize import Quantize
from wanc.compiler.resolve import Resolved
from wanc.compiler.stage import Stage, Tree
from wanc.compiler.texts import Texts
from wanc.errors import NotBuiltYetError
from wanc.runtime.model import HIGH, LOW

EXPERTS = (HIGH, LOW)
Run = Callable[[Stage, Mapping[str, Tree]], Tree]


@dataclass(frozen=True)
class Quantization:
    """The stages between fuse and engine, of a recipe that quantises; `experts` in the order in which they work."""

    texts: Texts
    experts: tuple[tuple[Calibrate, Quantize], ...]

    @classmethod
    def of(cls, resolved: Resolved) -> Quantization | None:
        """None where the recipe's scheme is none. Raises NotBuiltYetError for what cannot be asked for yet."""
        asked, sampling, shapes = resolved.recipe.quantize, resolved.recipe.sampling, resolved.recipe.shapes
        if asked.scheme == "none":
            return None
        assert sampling is not None and shapes is not None, "the recipe's schema lets only videos be quantised"
        if asked.method == "qat":
            raise NotBuiltYetError("quantize.method: qat is not built yet; today wanc builds: ptq")
        tokenizer = next(name for name, path in resolved.model.files.items() if path == resolved.model.tokenizer)
        scales = sampling.guidance
        trajectory = Trajectory(
            solver=sampling.solver,
            steps=sampling.steps,
            timesteps=sampling.timesteps,
            shift=sampling.shift,
            guidance_high=scales.high,
            guidance_low=scales.low,
            boundary=resolved.boundary,
        )
        sizes = tuple((shape.height, shape.width, shape.frames) for shape in shapes)
        calibrate = asked.calibrate

        rule = asked.keep.sensitivity

        def expert(component: str) -> tuple[Calibrate, Quantize]:
            return (
                Calibrate(component, trajectory, sizes, calibrate.clips, calibrate.timestep_bins, calibrate.seed),
                Quantize(
                    component,
                    asked.scheme,
                    calibrate.observer,
                    asked.smooth.alpha,
                    asked.keep.patterns,
                    rule and rule.max_drop_db,
                    rule and rule.int8_share,
                    trajectory,
                ),
            )

        experts = tuple(map(expert, quantized_components(resolved)))
        prompts = resolved.prompts[: calibrate.clips]
        return cls(Texts((*prompts, sampling.negative_prompt), tokenizer), experts)

    @property
    def tools(self) -> tuple[str, ...]:
        stages = (self.texts, *(stage for expert in self.experts for stage in expert))
        return tuple(tool for stage in stages for tool in stage.tools)

    def run(self, run: Run, program: Tree, exported: Tree, source: Tree) -> Tree:
        """The program with every expert quantised; `run` yields the result of one stage.

        Raises RecipeError for a keep pattern that fits nothing, before anything is sampled.
        """
        self._check_patterns(program)
        inputs = {"exported": exported, "source": source}
        texts = run(self.texts, {"program": program, **inputs})
        for calibrate, quantize in self.experts:
            inputs |= {"program": program, "texts": texts}
            samples = run(calibrate, inputs)
            program = program.joined(run(quantize, {**inputs, "samples": samples}))
        return program

    def _check_patterns(self, program: Tree) -> None:
        components = Program.read(program.locate()[FILE]).components
        parameters = {stage.component: components[stage.component].weights for _, stage in self.experts}
        check_patterns(parameters, [*dict.fromkeys(pattern for _, stage in self.experts for pattern in stage.keep)])


def quantized_components(resolved: Resolved) -> tuple[str, ...]:
    """The experts of a recipe that quantises, in the order in which they work."""
    asked = resolved.recipe.quantize.scheme != "none"
    return tuple(component for component in EXPERTS if asked and component in resolved.model.components)
