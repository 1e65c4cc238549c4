from pathlib import Path

import pytest

from nightshelf.blocked import blocked_items
from nightshelf.config import load_shop

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_ids_are_told_from_comments_and_from_what_editors_add(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "blocked.txt"
    file.write_text("S0000001\r\n# recalled\r\n  # until May\r\n\r\n S0000002 \r\n", encoding=encoding)
    shop = load_shop(DEMO).model_copy(update={"blocked": str(file)})
    assert blocked_items(shop) == {"S0000001", "S0000002"}
