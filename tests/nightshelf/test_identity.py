import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from nightshelf.config import Shop, load_shop
from nightshelf.errors import InputError
from nightshelf.identity import ensure_key, user_key

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path))
    monkeypatch.delenv("NIGHTSHELF_ID_KEY", raising=False)
    return load_shop(DEMO)


def test_the_key_is_made_once_and_nobody_else_may_read_it(shop: Shop) -> None:
    path = ensure_key(shop)
    key = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert len(key) >= 32
    assert ensure_key(shop).read_bytes() == key
    assert list(path.parent.iterdir()) == [path]


def test_a_key_from_the_environment_must_stay_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", "short")
    with pytest.raises(InputError, match="at least 32"):
        ensure_key(shop)
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", "k" * 40)
    assert ensure_key(shop).read_bytes() == b"k" * 40
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", "l" * 40)
    with pytest.raises(InputError, match="differs"):
        ensure_key(shop)


@pytest.mark.parametrize("held", [b"", b"short"])
def test_a_key_file_that_holds_no_whole_key_is_refused(shop: Shop, held: bytes) -> None:
    path = ensure_key(shop)
    path.chmod(0o600)
    path.write_bytes(held)
    with pytest.raises(InputError, match=f"{path} has {len(held)} bytes, .* 32 at least; bring the whole key back"):
        ensure_key(shop)


def test_a_key_that_is_gone_is_not_replaced_by_another(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ensure_key(shop)
    key = path.read_text()
    path.unlink()
    with pytest.raises(
        InputError, match=r"is gone, .* bring it back from a copy, give that key in \$NIGHTSHELF_ID_KEY"
    ):
        ensure_key(shop, has_users=True)
    assert not path.exists()
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", key)
    assert ensure_key(shop, has_users=True).read_text() == key


def test_a_pseudonym_is_the_keyed_hash() -> None:
    expected = hmac.new(b"key", b"user 1", hashlib.sha256).hexdigest()[:32]
    assert user_key("user 1", b"key") == expected
    assert user_key("user 1", b"other") != expected
