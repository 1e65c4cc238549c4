"""The items that no shelf may show, whatever they are worth: recalled, forbidden, or simply not wanted."""

from pathlib import Path

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import source_path


def blocked_items(shop: Shop) -> set[str]:
    """Return the item ids of the shop's file `blocked`: one a line; empty lines and those that begin with # do not count.

    Raises:
        InputError: the file cannot be read.
    """
    if shop.blocked is None:
        return set()
    file = Path(source_path(shop, shop.blocked))
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"blocked: {file} cannot be read ({error}); bring the file, an empty one will do") from None
    return {item for line in lines if (item := line.strip()) and not item.startswith("#")}
