"""Settings that refuse what they do not know, and say the nearest valid key."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mrtransfer.common.errors import UserError, nearest


class Strict(BaseModel):
    """A frozen pydantic model; an unknown key is refused with the nearest valid one."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and cls.model_config.get("extra") == "forbid":
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key(str(key), list(cls.model_fields)))
        return data


def unknown_key(key: str, valid: list[str]) -> str:
    """The sentence for a misspelt key."""
    close = nearest(key, valid)
    hint = f"did you mean {close!r}? " if close else ""
    return f"unknown key {key!r}: {hint}known: {', '.join(valid)}"


def first_error(error: ValidationError, where: str) -> UserError:
    """The first problem of a validation as one sentence that names ``where`` and the key."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] in ("value_error", "missing") else f" (given: {problem['input']!r})"
    return UserError(f"{where}: {key + ': ' if key else ''}{message}{given}")
