"""s2s: train sequence-to-sequence models from scratch and use them.

from s2s_cli import Translator
Translator("run").translate(["A dog runs."])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2s_cli.search.output import Output
    from s2s_cli.search.translator import Translator

__version__ = "0.1.0"
__all__ = ["Output", "Translator", "__version__"]

_ROOMS = {"Output": "s2s_cli.search.output", "Translator": "s2s_cli.search.translator"}


def __getattr__(name: str) -> Any:
    """What Python users need, imported when it is first asked for: it needs torch, and `s2s --help` does not."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)
