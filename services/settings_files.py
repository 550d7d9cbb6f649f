"""Settings out of files: `NAME_FILE` names the file that holds the value of `NAME`, as with secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import EnvSettingsSource

SUFFIX: Final = "_FILE"
BYTES_MAX: Final = 64 * 1024


class FileSettingsSource(EnvSettingsSource):
    """Reads what the environment would hold, had it the files' contents in place of their names.

    One line end is cut off. Raises `ValidationError` when a file cannot be read, is empty, is no UTF-8 or
    larger than 64 KiB, and when the variable itself is set, too: which of the two is meant cannot be told.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        environment = os.environ  # noqa: TID251 - this is where settings come from
        values: dict[str, str | None] = {}
        for variable in self._variables():
            if path := environment.get(f"{variable}{SUFFIX}"):
                if environment.get(variable):
                    self._refuse(variable, f"{variable} is set as well; set one of the two")
                values[variable.lower()] = self._read(variable, Path(path))
        return values

    def _variables(self) -> list[str]:
        prefix = self.settings_cls.model_config.get("env_prefix", "")
        return [
            field.validation_alias if isinstance(field.validation_alias, str) else f"{prefix}{name}".upper()
            for name, field in self.settings_cls.model_fields.items()
        ]

    def _read(self, variable: str, path: Path) -> str:
        try:
            with path.open("rb") as file:
                content = file.read(BYTES_MAX + 1)
            text = content.decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            self._refuse(variable, f"{path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._refuse(variable, f"{path} is not UTF-8")
        if not text:
            self._refuse(variable, f"{path} is empty")
        if len(content) > BYTES_MAX:
            self._refuse(variable, f"{path} is larger than {BYTES_MAX} bytes")
        return text

    def _refuse(self, variable: str, reason: str) -> NoReturn:
        fault = PydanticCustomError("file", "{reason}", {"reason": reason})
        raise ValidationError.from_exception_data(
            self.settings_cls.__name__,
            [{"type": fault, "loc": (f"{variable}{SUFFIX}",), "input": None}],
            hide_input=True,
        )
