"""Scores of text against references, what they are worth, and where they come from. It knows no torch and no models."""
