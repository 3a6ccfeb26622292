"""What recipes name: an entry of a registry by its name, or by a mapping with its name and settings."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mrtransfer.common.errors import UserError
from mrtransfer.common.registry import Registry
from mrtransfer.common.strict import Strict, first_error

S = TypeVar("S", bound=Strict)


def parse_named(value: Any, kind: type[S], registry: Registry, where: str, alias: str | None = None) -> S:
    """The entry of ``registry`` that ``value`` names, with its settings; one that is a ``kind`` already stays.

    ``alias`` may be written for ``name``. Raises :class:`UserError` that begins with ``where`` for an unknown name, an
    unknown key (with the nearest valid one) or a bad value.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str):
        value = {"name": value}
    name = value.get("name", value.get(alias)) if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f"{where}: give a name ({', '.join(registry.names())}) or a mapping with name and settings")
    settings = {key: setting for key, setting in value.items() if key not in ("name", alias)}
    entry: type[S] = registry.get(name)
    try:
        return entry.model_validate(settings)
    except ValidationError as error:
        raise first_error(error, f"{where} {name}") from error
