"""Recipes: TOML in, frozen dataclasses out, strictly.

The table of a recipe *is* the constructor call of a frozen dataclass. Every key is checked against the fields,
every value against the field's type, and every complaint names the key's full path and the next step. A field
annotated `Annotated[Objective, Part("objectives")]` holds a part that is chosen by name
(`objective = "causal"`, or a table with `name` and the part's own settings).
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import textwrap
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from gristmill import plugins
from gristmill.errors import InputError, did_you_mean

__all__ = ["Part", "field_docs", "from_dict", "json_schema", "load", "override", "read_toml", "to_dict"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Part:
    """Marks a field whose value is a part chosen by name from a package such as "objectives"."""

    package: str


def load(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Returns the recipe in `path` as a `cls`, with `a.b=1` overrides applied.

    Raises:
        InputError: the file can't be read or parsed, a key is unknown, or a value does not fit.
    """
    return from_dict(cls, override(read_toml(path), overrides))


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no recipe {path}", "recipes/demo.toml is one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the recipe {path} can't be read: {error}", "a recipe is a TOML file in UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}", 'strings need quotes: name = "demo"') from None


def override(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of `table` with each `a.b=value` set. A value that is not TOML counts as a string."""
    result: dict[str, Any] = _deep_copy(table)
    for item in overrides:
        path, equals, text = item.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise InputError(f'"{item}" does not set anything', "write --set table.key=value")
        try:
            parsed = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            parsed = {}
        value = parsed["value"] if len(parsed) == 1 else text  # more than one: a line break in a string
        here = result
        for depth, key in enumerate(keys[:-1]):
            inner = here.setdefault(key, {})
            if isinstance(inner, str):  # objective = "causal" and --set pretrain.objective.x=1
                inner = here[key] = {"name": inner}
            if not isinstance(inner, dict):
                raise InputError(f'"{".".join(keys[: depth + 1])}" is a value, not a table')
            here = inner
        here[keys[-1]] = value
    return result


def from_dict(cls: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """Returns `cls(**table)`, each key and value checked; `where` is the path that errors name."""
    hints = _hints(cls)
    known = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise InputError(f'unknown key "{_join(where, key)}"', did_you_mean(key, known))
    values = {key: _value(hints[key], value, _join(where, key)) for key, value in table.items()}
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.init and f.default is f.default_factory is dataclasses.MISSING and f.name not in values
    ]
    if missing:
        names = ", ".join(f'"{_join(where, name)}"' for name in missing)
        doc = field_docs(cls).get(missing[0], "")
        raise InputError(f"{names} is missing", f"{missing[0]}: {doc}" if doc else None)
    try:
        return cls(**values)
    except InputError as error:
        if where and not error.message.startswith(where):
            raise InputError(f"{where}: {error.message}", error.hint) from None
        raise


def to_dict(value: Any) -> Any:
    """Returns a config as plain JSON values; the inverse of `from_dict`. A part carries its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        name = _part_name(type(value))
        return fields if name is None else {"name": name, **fields}
    if isinstance(value, Mapping):
        return {str(key): to_dict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(inner) for inner in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def json_schema(cls: type, title: str | None = None) -> dict[str, Any]:
    """Returns the JSON schema of a config class, for editors that complete and check TOML."""
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    if title:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}
    hints, docs = _hints(cls), field_docs(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        entry = _schema(hints[field.name])
        if field.name in docs:
            entry["description"] = docs[field.name]
        if field.default is not dataclasses.MISSING:
            entry["default"] = to_dict(field.default)
        elif field.default_factory is dataclasses.MISSING:
            schema.setdefault("required", []).append(field.name)
        schema["properties"][field.name] = entry
    return schema


def field_docs(cls: type) -> dict[str, str]:
    """Returns the docstring below each field of a dataclass, its base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for node, after in itertools.pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[node.target.id] = " ".join(after.value.value.split())
    return docs


def _value(annotation: Any, value: Any, where: str) -> Any:
    part = _part_of(annotation)
    if part is not None:
        return None if value is None and _may_be_none(annotation) else _part(part, value, where)
    cls = _dataclass_of(annotation)
    if cls is not None:
        if value is None and type(None) in get_args(annotation):
            return None
        if not isinstance(value, Mapping):
            raise InputError(
                f'"{where}" is {_show(value)}, but it is a table', f"write [{where}] and its keys below"
            )
        return from_dict(cls, value, where)
    item = _dataclass_item_of(annotation)
    if item is not None:
        if not isinstance(value, list | tuple) or not all(isinstance(inner, Mapping) for inner in value):
            raise InputError(f'"{where}" is {_show(value)}, but it is a list of tables', f"write [[{where}]]")
        return tuple(from_dict(item, inner, f"{where}[{i}]") for i, inner in enumerate(value))
    return _leaf(annotation, value, where)


def _leaf(annotation: Any, value: Any, where: str) -> Any:
    import pydantic  # 140 ms: only when there is something to check

    try:
        text = json.dumps(to_dict(value), allow_nan=False)
    except ValueError:
        raise InputError(f'"{where}" is {value}, but it should be a finite number', None) from None
    except TypeError:
        raise InputError(
            f'"{where}" is {value!r}, which a recipe does not know', "use a string or a number"
        ) from None
    try:
        return _adapter(annotation).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        inner = ".".join(str(part) for part in first["loc"] if not isinstance(part, str) or "[" not in part)
        expected = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        choices = [str(c) for c in _literals(annotation)]
        hint = did_you_mean(str(value), choices) if choices and isinstance(value, str) else None
        where = f"{where}[{inner}]" if inner.isdigit() else where
        raise InputError(f'"{where}" is {_show(value)}, but it {expected}', hint) from None


def _part(part: Part, value: Any, where: str) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        known = ", ".join(plugins.names(part.package))
        raise InputError(
            f'"{where}" names no part', f'write {where.rsplit(".", 1)[-1]} = "…", one of: {known}'
        )
    settings = {key: inner for key, inner in value.items() if key != "name"}
    try:
        exported = plugins.load(part.package, value["name"])
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None
    return from_dict(exported, settings, where)


def _schema(annotation: Any) -> dict[str, Any]:
    part = _part_of(annotation)
    if part is not None:
        tables = []
        for name in plugins.names(part.package):
            table = json_schema(plugins.load(part.package, name))
            table["properties"] = {"name": {"const": name}, **table["properties"]}
            table["required"] = ["name", *table.get("required", [])]
            tables.append(table)
        return {"anyOf": [{"enum": plugins.names(part.package)}, {"type": "string"}, *tables]}
    cls = _dataclass_of(annotation)
    if cls is not None:
        return json_schema(cls)
    item = _dataclass_item_of(annotation)
    if item is not None:
        return {"type": "array", "items": json_schema(item)}
    schema: dict[str, Any] = _adapter(annotation).json_schema()
    return schema


def _part_of(annotation: Any) -> Part | None:
    if get_origin(annotation) is Annotated:
        return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, Part)), None)
    return None


def _may_be_none(annotation: Any) -> bool:
    return type(None) in get_args(get_args(annotation)[0])


def _dataclass_of(annotation: Any) -> type | None:
    """The config class of a field, also when the field may be None."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _dataclass_of(inner[0]) if len(inner) == 1 else None
    return annotation if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) else None


def _dataclass_item_of(annotation: Any) -> type | None:
    """The config class of the items of a `tuple[Config, ...]` field."""
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (Ellipsis,):
        return _dataclass_of(get_args(annotation)[0])
    return None


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is typing.Literal:
        return list(get_args(annotation))
    return [choice for arg in get_args(annotation) for choice in _literals(arg)]


def _part_name(cls: type) -> str | None:
    """The name of a part, or None for a class that is no part. The module's EXPORT decides."""
    module = inspect.getmodule(cls)
    if module is None or getattr(module, "EXPORT", None) is not cls:
        return None
    name = module.__name__
    return name.rsplit(".", 1)[-1] if name.startswith("gristmill.") else name


@functools.cache
def _adapter(annotation: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(annotation)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(inner) for key, inner in value.items()}
    return [_deep_copy(inner) for inner in value] if isinstance(value, list) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _show(value: Any) -> str:
    text = json.dumps(to_dict(value), ensure_ascii=False, default=str)  # a TOML date is no JSON
    return text if len(text) <= 60 else text[:57] + "..."
