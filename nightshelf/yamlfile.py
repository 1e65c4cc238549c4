"""Read a YAML file into a pydantic model, and tell a mistake with its file, line and the nearest key that exists."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshelf.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Strict(BaseModel):
    """A part of a YAML file: an unknown key is an error, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans only: `on` is a key of a task, and `no` may be a country."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def load_model(path: Path, model: type[Model], example: str = "conf/shops/demo.yaml") -> Model:
    """Parse the YAML file at `path` as `model`; `example` is a file that shows its keys.

    Raises:
        InputError: the file is missing, is no YAML, or a key is unknown, missing, wrong or there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name an existing YAML file") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:  # 2026-11-31 looks like a date, and is none
        raise InputError(
            f"{path}: a value is none: {error}; correct it (a date is YYYY-MM-DD, of a day that exists)"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys; see {example} for an example")
    _check_once(root, path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, path, root, model, example)) from None


def _check_once(root: yaml.Node | None, path: Path) -> None:
    """Refuse a key that stands twice in one place, of which YAML would take the last."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias, which may even name what it is in
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise InputError(
                    f"{path}:{line}: key {name!r} is there already, in line {lines[name]}; keep one of them"
                )
            lines[name] = line
            waiting.append(value)


def _explain(error: ValidationError, path: Path, root: yaml.Node | None, model: type[BaseModel], example: str) -> str:
    # A key that is misspelled is missing, too: tell what is written there
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    parts = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained-"))]
    line = _line_of(root, list(first["loc"]))
    name = ".".join(parts)
    if first["type"] == "extra_forbidden":
        remedy = nearest(str(first["loc"][-1]), _sibling_keys(model, list(first["loc"][:-1])))
        return f"{path}:{line}: unknown key {name!r}; {remedy}"
    if first["type"] == "missing":
        return f"{path}:{line}: key {name!r} is missing; add it (see {example})"
    if first["type"] == "union_tag_not_found":
        tag = first["ctx"]["discriminator"].strip("'")
        return f"{path}:{line}: key '{name}.{tag}' is missing; add it (see {example})"
    message = first["msg"].removeprefix("Value error, ")
    if not parts:
        return f"{path}: {message}"
    return f"{path}:{line}: {name} = {str(first['input'])[:80]!r}: {message}"


def _line_of(node: yaml.Node | None, where: list[int | str]) -> int:
    line = node.start_mark.line + 1 if node is not None else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _sibling_keys(model: type[BaseModel], where: list[int | str]) -> list[str]:
    """Return the keys that exist at `where`, walking through lists, dictionaries and unions of models."""
    models: list[type[BaseModel]] = [model]
    for part in where:
        found = [
            candidate
            for m in models
            if part in m.model_fields
            for candidate in _models_in(m.model_fields[part].annotation)
        ]
        models = found or [m for m in models if part in _tags(m)] or models
    return [name for m in models for name in m.model_fields]


def _tags(model: type[BaseModel]) -> list[Any]:
    """Return the values that tell a model from the others of its union."""
    literals = [field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return [value for literal in literals for value in get_args(literal)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def nearest(key: str, known: list[str]) -> str:
    """Return what to say of a name that is not known: which one may be meant, or all that are."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(set(known)))}"
