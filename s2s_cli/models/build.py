"""From settings to a model. A new architecture is one file beside this one and a line here."""

from s2s_cli.config import ModelSettings, RnnSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.rnn import Rnn
from s2s_cli.models.transformer import Transformer


def build_model(settings: ModelSettings, sizes: Sizes) -> Seq2Seq:
    """A model with fresh weights, drawn from torch's global generator.

    Raises ConfigError where settings and vocabularies do not go together.
    """
    if settings.tie == "all" and not sizes.shared:
        raise ConfigError(
            "model.tie is all, but source and target have vocabularies of their own: set it to target or none"
        )
    if isinstance(settings, RnnSettings):
        return Rnn(settings, sizes)
    return Transformer(settings, sizes)


def num_parameters(model: Seq2Seq) -> int:
    """Trained numbers, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
