from pathlib import Path

from pipelines.table_docs import tables_markdown


def test_the_page_of_tables_is_what_the_code_says() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "tables.md"
    assert page.read_text() == tables_markdown(), "docs/tables.md is old; run `make docs`"
