import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from hypothesis import given
from hypothesis import strategies as st

from gristmill.config import Part, field_docs, from_dict, json_schema, load, override, read_toml, to_dict
from gristmill.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    path: Path
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    steps: Annotated[int, Gt(0)] = 100
    """How many updates."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    objective: Annotated[Any, Part("objectives")] = None

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise InputError("steps = 13 is unlucky", "take 12")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    """What the run is called."""
    seed: int = 0
    training: Training = dataclasses.field(default_factory=Training)
    extra: Training | None = None
    sources: tuple[Source, ...] = ()
    words: tuple[str, ...] = ()


WHOLE = {
    "name": "demo",
    "seed": 3,
    "training": {"steps": 5, "precision": "float32", "objective": {"name": "causal"}},
    "extra": None,
    "sources": [{"path": "a/b.txt", "weight": 2.0}],
    "words": ["明", "b"],
}


def test_a_table_is_the_constructor_call() -> None:
    recipe = from_dict(Recipe, {"name": "demo", "training": {"steps": 5}, "sources": [{"path": "a.txt"}]})
    assert recipe == Recipe(name="demo", training=Training(steps=5), sources=(Source(path=Path("a.txt")),))


def test_a_config_survives_the_way_through_json() -> None:
    recipe = from_dict(Recipe, WHOLE)
    assert to_dict(recipe) == WHOLE
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"sead": 1}, 'unknown key "sead"', 'did you mean "seed"?'),
        ({"training": {"step": 1}}, 'unknown key "training.step"', 'did you mean "steps"?'),
        ({"sources": [{"path": "a", "wait": 1}]}, 'unknown key "sources[0].wait"', 'did you mean "weight"?'),
        ({"seed": "1"}, '"seed" is "1", but it should be a valid integer', None),
        ({"seed": True}, '"seed" is true, but it should be a valid integer', None),
        ({"seed": 1.0}, '"seed" is 1.0, but it should be a valid integer', None),
        ({"training": {"steps": 0}}, '"training.steps" is 0, but it should be greater than 0', None),
        ({"training": {"steps": 13}}, "training: steps = 13 is unlucky", "take 12"),
        (
            {"training": {"precision": "bfloat"}},
            "\"training.precision\" is \"bfloat\", but it should be 'auto', 'float32' or 'bfloat16'",
            'did you mean "bfloat16"?',
        ),
        ({"training": 3}, '"training" is 3, but it is a table', "write [training] and its keys below"),
        ({"sources": [1]}, '"sources" is [1], but it is a list of tables', "write [[sources]]"),
        ({"sources": [{}]}, '"sources[0].path" is missing', None),
        (
            {"sources": [{"path": "a", "weight": float("nan")}]},
            '"sources[0].weight" is nan, but it should be a finite number',
            None,
        ),
        ({"words": ["a", 2]}, '"words[1]" is ["a", 2], but it should be a valid string', None),
        (
            {"training": {"objective": "casual"}},
            'training.objective: there is no objective called "casual"',
            'did you mean "causal"?',
        ),
        (
            {"training": {"objective": {"name": "causal", "depth": 1}}},
            'unknown key "training.objective.depth"',
            "there are none",
        ),
        ({"training": {"objective": 3}}, '"training.objective" names no part', None),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(
    change: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(InputError) as error:
        from_dict(Recipe, {"name": "demo", **change})
    assert error.value.message == message
    if hint is not None:
        assert error.value.hint == hint


def test_what_is_missing_is_explained_by_its_docstring() -> None:
    with pytest.raises(InputError) as error:
        from_dict(Recipe, {})
    assert (error.value.message, error.value.hint) == ('"name" is missing', "name: What the run is called.")


@pytest.mark.parametrize("value", ["2020-01-01", "2020-01-01T00:00:00Z"])
@pytest.mark.parametrize("key", ["seed", "training", "sources", "training.objective"])
def test_a_date_where_none_belongs_is_a_plain_error(key: str, value: str) -> None:
    with pytest.raises(InputError, match=key):
        from_dict(Recipe, override({"name": "demo"}, [f"{key}={value}"]))


@pytest.mark.parametrize(
    ("item", "table"),
    [
        ("a=1", {"a": 1}),
        ("a.b=1.5", {"a": {"b": 1.5, "c": 0}}),
        ("a.b=true", {"a": {"b": True, "c": 0}}),
        ("a.b=3 min", {"a": {"b": "3 min", "c": 0}}),
        ('a.b="3"', {"a": {"b": "3", "c": 0}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2], "c": 0}}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": 0}}),
        ("a.b=", {"a": {"b": "", "c": 0}}),
        ("d.e.f=1", {"a": {"c": 0}, "d": {"e": {"f": 1}}}),
        ("a.b=1\nc = 2", {"a": {"b": "1\nc = 2", "c": 0}}),
    ],
)
def test_an_override_sets_one_value(item: str, table: dict[str, Any]) -> None:
    before = {"a": {"c": 0}}
    assert override(before, [item]) == table
    assert before == {"a": {"c": 0}}


def test_an_override_reaches_into_a_part_that_is_only_named() -> None:
    assert override({"o": "causal"}, ["o.x=1"]) == {"o": {"name": "causal", "x": 1}}


@pytest.mark.parametrize("item", ["a", "=1", "a..b=1", ".a=1", ""])
def test_an_override_that_sets_nothing_is_refused(item: str) -> None:
    with pytest.raises(InputError, match="does not set anything"):
        override({}, [item])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(InputError, match=r'"a\.b" is a value, not a table'):
        override({"a": {"b": 1}}, ["a.b.c=2"])


@given(st.text(max_size=30))
def test_an_override_takes_any_text(text: str) -> None:
    value = override({}, [f"key={json.dumps(text, ensure_ascii=False)}"])["key"]
    assert value == text or "\x7f" in text  # TOML wants DEL escaped, JSON does not


def test_a_recipe_is_read_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "demo"\n[training]\nsteps = 7\n', encoding="utf-8")
    assert load(Recipe, path, ["training.precision=float32"]) == Recipe(
        name="demo", training=Training(steps=7, precision="float32")
    )


def test_a_recipe_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no recipe"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match="can't be read"):
        read_toml(tmp_path)
    (tmp_path / "utf16.toml").write_bytes("name = 'é'".encode("utf-16"))
    with pytest.raises(InputError, match="can't be read"):
        read_toml(tmp_path / "utf16.toml")
    (tmp_path / "bad.toml").write_text("name = demo")
    with pytest.raises(InputError, match="is not valid TOML"):
        read_toml(tmp_path / "bad.toml")


def test_the_schema_says_what_the_class_says() -> None:
    schema = json_schema(Recipe, "a recipe")
    assert schema["title"] == "a recipe"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name"]
    properties = schema["properties"]
    assert properties["name"] == {"type": "string", "description": "What the run is called."}
    assert properties["seed"] == {"type": "integer", "default": 0}
    training = properties["training"]["properties"]
    assert training["steps"] == {
        "type": "integer",
        "exclusiveMinimum": 0,
        "description": "How many updates.",
        "default": 100,
    }
    assert training["precision"]["enum"] == ["auto", "float32", "bfloat16"]
    assert "causal" in training["objective"]["anyOf"][0]["enum"]
    assert properties["sources"]["items"]["required"] == ["path"]
    json.dumps(schema)


def test_field_docs_include_those_of_base_classes() -> None:
    @dataclasses.dataclass(frozen=True)
    class Child(Training):
        more: int = 0
        """One more."""

    assert field_docs(Child) == {"steps": "How many updates.", "more": "One more."}


def test_reading_a_config_does_not_import_torch() -> None:
    import subprocess

    code = "import sys, gristmill.config, gristmill.artifact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
