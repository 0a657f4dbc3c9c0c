"""`s2s score`: outputs and references in, scores with signatures out, on a terminal, in a pipe or as JSON.

It runs without torch. The numbers themselves are made in `metrics.py` and `significance.py`.
"""

from s2s_cli.evaluation.metrics import METRICS, Score, corpus_score

__all__ = ["METRICS", "Score", "corpus_score"]
