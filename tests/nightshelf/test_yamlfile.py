from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from nightshelf.errors import InputError
from nightshelf.yamlfile import Strict, load_model


class Page(BaseModel):
    on: str
    country: str
    open: bool


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_on_and_no_are_words_and_true_is_a_boolean(tmp_path: Path, text: str, value: bool) -> None:
    (tmp_path / "page.yaml").write_text(f"on: any_item\ncountry: no\nopen: {text}\n")
    page = load_model(tmp_path / "page.yaml", Page)
    assert (page.on, page.country, page.open) == ("any_item", "no", value)


class Shelf(Strict):
    width: int = 1
    share: float = 0.5
    inner: dict[str, int] = Field({})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("width: 2\nshare: 1\nwidth: 3\n", r"shelf.yaml:3: key 'width' is there already, in line 1; keep one of them$"),
        ("inner:\n  a: 1\n  b: 2\n  a: 1\n", r"shelf.yaml:4: key 'a' is there already, in line 2"),
        ("", r"shelf.yaml: holds no keys; see conf/an_example.yaml for an example$"),
        ("inner: &a {b: *a}\n", r"shelf.yaml:1: inner.b = .*valid integer"),
    ],
)
def test_what_would_be_read_otherwise_than_it_is_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "shelf.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_model(tmp_path / "shelf.yaml", Shelf, "conf/an_example.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("on: a\ncountry: b\non: c\n", r"page.yaml:3: key 'on' is there already, in line 1"),
        ("on: [{a: 1, b: 2, a: 3}]\n", r"page.yaml:1: key 'a' is there already"),
        ("on: a\ncountry: 2026-11-31\n", r"page.yaml: a value is none: day is out of range"),
    ],
)
def test_a_key_that_is_there_twice_and_a_day_that_does_not_exist_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "page.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_model(tmp_path / "page.yaml", Page)


def test_what_an_alias_repeats_is_no_key_twice(tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text("on: &a x\ncountry: *a\nopen: true\n")
    assert load_model(tmp_path / "page.yaml", Page).country == "x"
