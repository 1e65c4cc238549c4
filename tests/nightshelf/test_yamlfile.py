from pathlib import Path

import pytest
from pydantic import BaseModel

from nightshelf.yamlfile import load_model


class Page(BaseModel):
    on: str
    country: str
    open: bool


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_on_and_no_are_words_and_true_is_a_boolean(tmp_path: Path, text: str, value: bool) -> None:
    (tmp_path / "page.yaml").write_text(f"on: any_item\ncountry: no\nopen: {text}\n")
    page = load_model(tmp_path / "page.yaml", Page)
    assert (page.on, page.country, page.open) == ("any_item", "no", value)
