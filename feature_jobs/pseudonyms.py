"""Raw user ids end here: a keyed hash in every table, and raw text with the id taken out.

The key is read from its file inside the UDF, on the machine that runs it; a plan or an event log shows the path alone.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column
from pyspark.sql import functions as F

from nightshelf.identity import user_key

# A shorter id may stand for other things too ("1"), so finding it once more in a masked text proves no leak.
_TELLING_LENGTH = 5
_LETTER_OR_DIGIT = r"[^\W_]"


def user_keys(key_path: Path) -> Callable[[Column], Column]:
    """Return a UDF user_id → user_key under the key in `key_path`; each id of a batch is hashed once."""
    path = str(key_path)

    def hash_ids(ids: pa.Array) -> pa.Array:
        """Return the key of each id of a batch, null for null; executors read the secret from its file themselves."""
        key, coded = Path(path).read_bytes(), ids.dictionary_encode()
        hashed = [user_key(user_id, key) for user_id in coded.dictionary.to_pylist()]
        return pa.array(hashed, pa.string()).take(coded.indices)

    return F.arrow_udf(hash_ids, "string")  # type: ignore[call-overload, no-any-return]


def masked_texts(key_path: Path) -> Callable[[Column, Column], Column]:
    """Return a UDF (raw, user_id) → raw with the id replaced by its key; null where it cannot be told apart in the text."""
    path = str(key_path)

    def mask(raws: pa.Array, ids: pa.Array) -> pa.Array:
        """Return each text of a batch with its own id masked; null where there is no text or id, or the id stays legible."""
        is_text = raws.is_valid()
        key, texts = Path(path).read_bytes(), zip(raws.filter(is_text), ids.filter(is_text), strict=True)
        masked = [_masked(raw.as_py(), user_id.as_py(), key) for raw, user_id in texts]
        return pc.replace_with_mask(pa.nulls(len(raws), pa.string()), is_text, pa.array(masked, pa.string()))

    return F.arrow_udf(mask, "string")  # type: ignore[call-overload, no-any-return]


def _masked(raw: str, user_id: str | None, key: bytes) -> str | None:
    if not user_id:
        return None
    whole = rf"(?<!{_LETTER_OR_DIGIT}){re.escape(user_id)}(?!{_LETTER_OR_DIGIT})"
    replaced = re.sub(whole, user_key(user_id, key), raw)
    leaks = len(user_id) >= _TELLING_LENGTH and user_id in replaced
    return None if replaced == raw or leaks else replaced


def mask_letters_and_digits(text: Column) -> Column:
    """Return the text with every letter as x and every digit as 9."""
    return F.regexp_replace(F.regexp_replace(text, r"\p{L}", "x"), r"\p{N}", "9")
