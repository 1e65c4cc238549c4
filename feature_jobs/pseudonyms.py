"""Raw user ids end here: a keyed hash in every table, and raw text with the id taken out.

The key is read from its file inside the UDF, on the machine that runs it; a plan or an event log shows the path alone.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from nightshelf.identity import user_key

# A shorter id may stand for other things too ("1"), so finding it once more in a masked text proves no leak.
_TELLING_LENGTH = 5


def user_keys(key_path: Path) -> Callable[[Column], Column]:
    """Return a UDF user_id → user_key under the key in `key_path`; each id of a batch is hashed once."""
    path = str(key_path)

    def hash_ids(ids: pa.Array) -> pa.Array:
        key, coded = Path(path).read_bytes(), ids.dictionary_encode()
        hashed = [user_key(user_id, key) for user_id in coded.dictionary.to_pylist()]
        return pa.array(hashed, pa.string()).take(coded.indices)

    return F.arrow_udf(hash_ids, "string")  # type: ignore[call-overload, no-any-return]


def mask_raw(raw: Column, user_id: Column, key: Column) -> Column:
    """Return the raw text with the user id replaced by its key; all letters and digits masked where that fails."""
    quoted = F.regexp_replace(user_id, r"([^\p{L}\p{N}])", r"\\$1")
    whole = F.concat(F.lit(r"(?<![\p{L}\p{N}])"), quoted, F.lit(r"(?![\p{L}\p{N}])"))
    replaced = F.regexp_replace(raw, whole, key)
    leaks = (F.length(user_id) >= _TELLING_LENGTH) & replaced.contains(user_id)
    is_told_apart = user_id.isNotNull() & (user_id != "") & (replaced != raw) & ~leaks
    return F.when(is_told_apart, replaced).otherwise(mask_letters_and_digits(raw))


def mask_letters_and_digits(text: Column) -> Column:
    """Return the text with every letter as x and every digit as 9."""
    return F.regexp_replace(F.regexp_replace(text, r"\p{L}", "x"), r"\p{N}", "9")
