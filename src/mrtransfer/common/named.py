"""What recipes name: an entry of a registry by its name, or by a mapping with its name and settings."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationError, model_serializer

from mrtransfer.common.errors import UserError
from mrtransfer.common.registry import Registry
from mrtransfer.common.strict import Strict, first_error


class Named(Strict):
    """Settings of an entry of a registry, which are written with its name."""

    name: ClassVar[str] = ""

    @model_serializer(mode="plain")
    def _with_name(self) -> dict[str, Any]:
        """All settings and the name, also where a field is declared as the plain base class."""
        return {"name": self.name, **{field: getattr(self, field) for field in type(self).model_fields}}


def parse_named(value: Any, registry: Registry, where: str, alias: str | None = None) -> Any:
    """The entry of ``registry`` that ``value`` names, with its settings; one that was read already stays as it is.

    ``alias`` may be written for ``name``. Raises :class:`UserError` that begins with ``where`` for an unknown name, an
    unknown key (with the nearest valid one) or a bad value.
    """
    if isinstance(value, Named):
        return value
    if isinstance(value, str):
        value = {"name": value}
    name = value.get("name", value.get(alias)) if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f"{where}: give a name ({', '.join(registry.names())}) or a mapping with name and settings")
    settings = {key: setting for key, setting in value.items() if key not in ("name", alias)}
    try:
        return registry.get(name).model_validate(settings)
    except ValidationError as error:
        raise first_error(error, f"{where} {name}") from error
