"""Other toolkits, each in an environment of its own: how it is installed, and how it trains what the others train.

`clock.py` and the modules that have a toolkit's name run inside these environments: at import they need Python alone.
"""
