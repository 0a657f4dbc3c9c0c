"""Checkpoints: the bundle format, and averages of bundles."""
