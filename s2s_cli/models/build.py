"""From settings to a model."""

from s2s_cli.config import ModelSettings, RnnSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Seq2Seq, Sizes
from s2s_cli.models.rnn import Rnn
from s2s_cli.models.transformer import Transformer


def build_model(settings: ModelSettings, sizes: Sizes) -> Seq2Seq:
    """A model with fresh weights, drawn from torch's global generator; ConfigError as in `check`."""
    check(settings, sizes)
    if isinstance(settings, RnnSettings):
        return Rnn(settings, sizes)
    return Transformer(settings, sizes)


def check(settings: ModelSettings, sizes: Sizes) -> None:
    """Raise ConfigError where settings and vocabularies do not go together."""
    if sizes.shared:
        return
    apart = "but source and target have vocabularies of their own"
    if settings.tie == "all":
        raise ConfigError(f"model.tie is all, {apart}: set it to target or none")
    if settings.head == "copy":
        raise ConfigError(f"model.head is copy, {apart}: preprocess with shared_vocab, or set it to softmax")


def num_parameters(model: Seq2Seq) -> int:
    """Trained numbers, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
