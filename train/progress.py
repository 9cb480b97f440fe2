"""How far a run has come: with the state's arrays, all that is needed to go on as if never killed.

The data needs no state of its own: its order depends on the seed and the rows consumed.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from llama_jax.errors import InputError


@dataclass(frozen=True)
class Progress:
    """Written into each checkpoint as JSON.

    Attributes:
      stage: index of the stage under way.
      step: steps of the run that are done.
      stage_step: steps of the stage that are done.
      stage_first_step: the run's `step` when the stage began.
      rows: rows of data consumed in the stage.
      tokens: tokens trained on in the run.
      gate_rounds: how often the stage was prolonged because its gate was not passed.
      baselines: loss of each evaluation set before the stage, in nats a token, if it has a gate.
      elapsed_seconds: the run's time, all its processes' lives together.
    """

    stage: int = 0
    step: int = 0
    stage_step: int = 0
    stage_first_step: int = 0
    rows: int = 0
    tokens: int = 0
    gate_rounds: int = 0
    baselines: dict[str, float] = field(default_factory=dict)
    elapsed_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> "Progress":
        """Inverse of `to_dict`. Raises `InputError` for a missing or unknown field or a value that
        cannot be one."""
        names = {known.name for known in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or fields.keys() != names:
            raise InputError(f"progress: must have exactly the fields {', '.join(sorted(names))}")
        for known in dataclasses.fields(cls):
            value = fields[known.name]
            if known.type is int:
                right = type(value) is int and value >= 0
            elif known.type is float:
                right = type(value) in (int, float) and value >= 0
            else:
                right = isinstance(value, dict) and all(
                    type(loss) in (int, float) for loss in value.values()
                )
            if not right:
                raise InputError(f"progress: {known.name} cannot be {value!r}")
        return cls(**fields)
