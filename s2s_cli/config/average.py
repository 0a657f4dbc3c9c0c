"""Settings of `average`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from s2s_cli.config.section import Flag, NonNegativeInt, Section, Target, ValidMetric


class AverageSettings(Section):
    """Checkpoints of one model in, their average out."""

    bundle: Annotated[list[Path], Flag("-m")] = Field(default=[Path("run")], min_length=1)
    """A run folder, or the bundles to average."""
    last: NonNegativeInt = 0
    """Average the newest N checkpoints of the run."""
    best: NonNegativeInt = 0
    """Average the best N checkpoints of the run (neither --last nor --best: all it kept)."""
    metric: ValidMetric | None = None
    """What makes a checkpoint best: a metric that the run recorded; by default the one it was validated by."""
    weight: list[PositiveFloat] = []
    """Weight of each bundle, or checkpoint of the run, in their order (newest or best first); by default all count alike."""
    output: Annotated[Target, Flag("-o")] = Path("averaged")
    """The bundle to write."""

    @model_validator(mode="after")
    def _check(self) -> "AverageSettings":
        if self.last and self.best:
            raise ValueError("name one of last and best")
        if self.metric and not self.best:
            raise ValueError("metric chooses the best: say how many with best")
        return self
