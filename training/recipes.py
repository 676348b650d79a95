"""Recipes of training as TOML: strict, frozen, typed values, read by the name of a file of this package or by path."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config import explain
from engine.errors import ConfigError

Recipe = TypeVar("Recipe", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Values that do not change and admit no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def recipe_names(folder: str) -> list[str]:
    """Names of the recipes in ``folder`` of this package."""
    entries = (resources.files("training") / folder).iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, kind: type[Recipe], *, folder: str) -> Recipe:
    """Read a recipe of ``kind`` by its name in ``folder`` of this package, or from a TOML file.

    Raises ``ConfigError`` for an unknown name, key or value.
    """
    path, names = Path(name_or_path), recipe_names(folder)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"preset file {path} does not exist")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in names:
        text = (resources.files("training") / folder / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"unknown preset {name_or_path!r}; expected one of {names} or a .toml file")
    try:
        return kind.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name_or_path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{name_or_path}: {explain(error, kind)}") from error
