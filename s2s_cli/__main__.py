"""`s2s`, `python -m s2s_cli`, and so `torchrun -m -- s2s_cli`."""

import os
import signal
import sys


def main() -> None:
    """Run the command line. Until a command begins a signal ends the process at once, with 130 or 143 and no traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed before we began
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the whole process
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _frame: os._exit(128 + signum))
    from s2s_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
