"""s2s: train sequence-to-sequence models from scratch and use them."""

__version__ = "0.1.0"
