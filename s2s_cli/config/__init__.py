"""The settings of every command: one class a section of `s2s.yaml`, one field a setting, one docstring line a field.

Flags, help texts, defaults, ranges and the error for an unknown key all follow from these fields. This room knows no
files and no torch: where values come from is the business of `configio.py`, what they do that of the rooms they are for.
"""

from s2s_cli.config.average import AverageSettings
from s2s_cli.config.model import ArchitectureSettings, ModelSettings, RnnSettings, TransformerSettings
from s2s_cli.config.plot import PlotSettings
from s2s_cli.config.preprocess import PreprocessSettings
from s2s_cli.config.score import ScoreSettings
from s2s_cli.config.section import LOWER_IS_BETTER, METRICS, Flag, Section, ValidMetric
from s2s_cli.config.train import NoiseSettings, Part, RuntimeSettings, TrainSettings
from s2s_cli.config.translate import SearchSettings, TranslateSettings

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "ArchitectureSettings",
    "AverageSettings",
    "Config",
    "Flag",
    "ModelSettings",
    "NoiseSettings",
    "Part",
    "PlotSettings",
    "PreprocessSettings",
    "RnnSettings",
    "RuntimeSettings",
    "ScoreSettings",
    "SearchSettings",
    "Section",
    "TrainSettings",
    "TransformerSettings",
    "TranslateSettings",
    "ValidMetric",
]


class Config(Section):
    """All sections of `s2s.yaml`."""

    preprocess: PreprocessSettings = PreprocessSettings()
    model: ModelSettings = TransformerSettings()
    train: TrainSettings = TrainSettings()
    noise: NoiseSettings = NoiseSettings()
    search: SearchSettings = SearchSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    translate: TranslateSettings = TranslateSettings()
    score: ScoreSettings = ScoreSettings()
    average: AverageSettings = AverageSettings()
    plot: PlotSettings = PlotSettings()
