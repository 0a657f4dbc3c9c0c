"""What can go wrong by the user's hand. A message says what, where (file:line or key), and what to do next.

Only `cli.py` turns these into exit codes; every other room raises them and knows nothing of processes.
"""


class S2SError(Exception):
    """The user's mistake, or a state of the files that the user must know of. Ends a command with exit code 2."""


class ConfigError(S2SError):
    """A setting is unknown, out of range or in conflict with another one."""


class DataError(S2SError):
    """A corpus or a dataset folder cannot be used as it is."""


class BundleError(S2SError):
    """A checkpoint is missing, torn, altered or made for something else."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A signal ended the work after its state was saved; `signum` gives the exit code 128 + signum."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
