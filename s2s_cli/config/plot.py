"""Settings of `plot`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from s2s_cli.config.section import Flag, Rate, Section, Target, TextMetric

Curve = Literal["loss", "ppl", "criterion", "lr", "grad_norm", "tokens_per_second", "consistency", TextMetric]


class PlotSettings(Section):
    """Run folders in, a picture of their learning curves out."""

    runs: Annotated[list[Path], Flag("RUN")] = Field(default=[Path("run")], min_length=1)
    """Run folders, one colour each."""
    output: Annotated[Target, Flag("-o")] = Path("curves.svg")
    """The picture: .svg, .png or .pdf (extra: plot)."""
    x: Annotated[Literal["updates", "epochs", "hours"], Flag("-x")] = "updates"
    """What the curves run along."""
    y: Annotated[list[Curve], Flag("-y")] = []
    """What to draw, a panel each, of validation and training where both have it; by default the loss, all metrics of validation,
    the learning rate and the speed."""
    smooth: Rate = 0.8
    """How much of its neighbours is in each point of a training curve; 0 draws it as it was measured."""
