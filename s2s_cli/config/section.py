"""What every section of `s2s.yaml` is made of: the base class, the mark of a flag, and the types that several share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Flag:
    """How a field shows on the command line: a short name such as `-i`, or a long one in place of its own; a name without
    dashes makes it an argument that needs no flag.
    """

    short: str


class Section(BaseModel):
    """A section of `s2s.yaml`: unknown keys are errors, values do not change after they were read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list(cls, values: Any) -> Any:
        """Take a value for a list of one: `train_src: train.en` for `train_src: [train.en]`."""
        lists = {name for name, field in cls.model_fields.items() if get_origin(field.annotation) is list}
        if not isinstance(values, dict):
            return values
        return {k: [v] if k in lists and isinstance(v, str | Path | int | float) else v for k, v in values.items()}

    def idle(self) -> dict[str, str]:
        """Settings that change nothing beside the others, and what each needs to do so."""
        return {}

    @model_validator(mode="after")
    def _refuse_idle(self) -> Self:
        for name, needs in self.idle().items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} needs {needs}, or is left out")
        return self


def _with_a_name(path: Path) -> Path:
    if not path.name:
        raise ValueError(f"'{path}' has no name that could be written under (was a variable empty?): give it one")
    return path


Target = Annotated[Path, AfterValidator(_with_a_name)]  # what is written beside its name and then takes it
NonNegativeInt = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
TextMetric = Literal["bleu", "chrf", "ter", "wer", "exact", "rouge1", "rouge2", "rougeL", "rougeLsum"]
ValidMetric = Literal["loss", TextMetric]
METRICS: tuple[str, ...] = get_args(TextMetric)
LOWER_IS_BETTER = ("loss", "ter", "wer")
