"""From a model to its outputs."""
