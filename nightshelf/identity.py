"""Pseudonyms: HMAC-SHA256 of a user id under a key that lies outside every table (RFC 2104)."""

import hmac
import os
import secrets
from pathlib import Path

from nightshelf.config import Shop
from nightshelf.errors import InputError

KEY_BYTES = 32


def key_file(shop: Shop) -> Path:
    """Return the file that holds the shop's key when no environment variable does."""
    return shop.home / "keys" / "identity.key"


def ensure_key(shop: Shop, has_users: bool = False) -> Path:
    """Return the path of the shop's key file, making the file (mode 0400) at the first night.

    A key in the environment variable `privacy.key_env` is written to the file once; a later one that differs is refused,
    because every user would become a stranger to the model.

    Args:
        shop: the shop.
        has_users: whether there are users of earlier nights, so that no other key than theirs may be made.

    Raises:
        InputError: the key is too short, is gone, or is not the one that earlier nights used.
    """
    path = key_file(shop)
    given = os.environ.get(shop.privacy.key_env, "").encode()
    if given and len(given) < KEY_BYTES:
        raise InputError(f"${shop.privacy.key_env} has {len(given)} bytes; give a key of at least {KEY_BYTES}")
    if not path.exists():
        if has_users and not given:
            raise InputError(
                f"{path} is gone, the key of earlier nights' users, who would all be strangers under another; "
                f"bring it back from a copy, give that key in ${shop.privacy.key_env}, or start a new home"
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(given or secrets.token_hex(KEY_BYTES).encode())
        fresh.chmod(0o400)
        try:
            os.link(fresh, path)  # fails if another process was first, and then its key holds
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    held = path.read_bytes()
    if len(held) < KEY_BYTES:
        raise InputError(
            f"{path} has {len(held)} bytes, and a key has {KEY_BYTES} at least; bring the whole key back from a copy, "
            "or start a new home"
        )
    if given and held != given:
        raise InputError(
            f"${shop.privacy.key_env} differs from the key of earlier nights in {path}; unset it, or start a new home"
        )
    return path


def user_key(user_id: str, key: bytes) -> str:
    """Return the pseudonym of a user id: 32 hexadecimal digits (128 bits of HMAC-SHA256)."""
    return hmac.digest(key, user_id.encode(), "sha256").hex()[:32]
