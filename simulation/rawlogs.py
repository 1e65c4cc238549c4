"""Writes rows as six departments of one shop would: JSON lines, CSV and Parquet, each with names and times of its own."""

import gzip
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulation.behaviour import CAMPAIGN_PAGES
from simulation.catalogue import Catalogue
from simulation.dirt import code_of
from simulation.rows import SOURCES, Rows, take
from simulation.strangers import TEST_USERS

FOLDERS = tuple(name.removesuffix("_log") for name in SOURCES)
_KINDS = (
    ("show", "clk"),
    ("impression", "click"),
    ("related_shown", "related_click"),
    ("offer", "tap", "add"),
    ("addon_shown", "addon_click", "", "order"),
    ("seen", "clicked"),
)
_TEXT_TOO_LONG = "very " * 1000
_CUT_AFTER = 25  # letters of a line that are left when it was cut
_YEAR_9999 = 253_370_764_800_000
_ABSURD_PRICE, _ABSURD_QUANTITY = 1e9, 5_000_000


def user_names(users: np.ndarray) -> pa.Array:
    """Return the shop's user ids of these user numbers."""
    distinct, places = np.unique(users, return_inverse=True)
    names = pa.array([TEST_USERS.get(int(user), f"u{user:07d}") for user in distinct], pa.string())
    return names.take(pa.array(places))


def write_source(source: int, rows: Rows, catalogue: Catalogue, zone: ZoneInfo, folder: Path, part: str) -> Path:
    """Write the rows of one source, in the order of time, as `folder/part.<its format>`; return the file."""
    rows = take(rows, np.argsort(rows["ts"], kind="stable"))
    path, content = _WRITERS[SOURCES[source]](rows, _Texts(source, rows, catalogue), zone, folder / part)
    if content is not None:
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
            packed.write(content)
    return path


def raw_lines(source: int, rows: Rows, catalogue: Catalogue, zone: ZoneInfo) -> list[str | None]:
    """Return each row's line as the source's file holds it; None where the file is Parquet."""
    _, content = _WRITERS[SOURCES[source]](rows, _Texts(source, rows, catalogue), zone, None)
    if content is None:
        return [None] * len(rows["ts"])
    lines = bytes(content).decode().split("\n")[:-1]
    return lines[len(lines) - len(rows["ts"]) :]  # type: ignore[return-value]


class _Texts:
    """The columns of a source as text or numbers, with the defects that the rows bear; null = absent."""

    def __init__(self, source: int, rows: Rows, catalogue: Catalogue) -> None:
        self.rows, self.catalogue = rows, catalogue
        # Which of its forms a defect takes, and which key is missing: by the item's number.
        missing = np.where(self.has("missing_key_field"), rows["item"] % 3, -1)
        self.user = pc.if_else(pa.array(missing == 0), pa.scalar(None, pa.string()), user_names(rows["user"]))
        self.item = self._items(missing == 1)
        self.kind = self._kinds(source)
        self.ts = self._times(missing == 2)
        self.request = pc.binary_join_element_wise("r", pa.array(rows["request"]).cast(pa.string()), "")

    def has(self, reason: str) -> np.ndarray:
        """Return which rows bear the defect: bool [rows]."""
        return self.rows["defect"] == code_of(reason)

    def _items(self, missing: np.ndarray) -> pa.Array:
        skus = self.catalogue.skus.take(pa.array(self.rows["item"]))
        ghost = pc.binary_join_element_wise("GHOST", skus, "-")
        skus = pc.if_else(pa.array(self.has("unknown_item")), ghost, skus)
        return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), skus)

    def _kinds(self, source: int) -> pa.Array:
        names = pa.array([*_KINDS[source], "hover"])
        return names.take(pa.array(np.where(self.has("unknown_event_type"), len(names) - 1, self.rows["kind"])))

    def _times(self, missing: np.ndarray) -> pa.Array:
        wrong = np.where(self.rows["item"] % 2 == 0, 0, _YEAR_9999)
        return pa.array(np.where(self.has("impossible_timestamp"), wrong, self.rows["ts"]), mask=missing)

    def number(self, column: str) -> pa.Array:
        """Return an integer column, null where absent."""
        return pa.array(self.rows[column], mask=self.rows[column] < 0)

    def queries(self) -> pa.Array:
        """Return the text of each row's query, far too long where that is the defect."""
        text = self.catalogue.queries.take(self.number("query"))
        return pc.if_else(pa.array(self.has("text_too_long")), _TEXT_TOO_LONG, text)

    def prices(self) -> pa.Array:
        """Return the prices, negative or absurd where that is the defect; absurd are those of items of even number."""
        price = np.where(self.has("negative_number"), -self.rows["price"], self.rows["price"])
        return pa.array(np.where(self.has("absurd_number") & (self.rows["item"] % 2 == 0), _ABSURD_PRICE, price))

    def quantities(self) -> pa.Array:
        """Return the quantities, int32, null where absent; absurd, where that is the defect, are those of items of odd number."""
        absurd = self.has("absurd_number") & (self.rows["item"] % 2 == 1)
        quantity = np.where(absurd, _ABSURD_QUANTITY, self.rows["quantity"])
        return pa.array(quantity, pa.int32(), mask=quantity < 0)

    def lines(self, joined: pa.Array, header: str = "") -> memoryview | bytes:
        """Cut the unparsable lines and return all of them as one block of bytes."""
        cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(joined, 0, _CUT_AFTER), "\n", "")
        lines = pc.if_else(pa.array(self.has("unparsable")), cut, joined)
        if isinstance(lines, pa.ChunkedArray):
            lines = lines.combine_chunks()
        body = lines.buffers()[2]
        return header.encode() + (body.to_pybytes() if body is not None else b"")


Content = memoryview | bytes | None


def _json(**columns: pa.Array) -> pa.Array:
    """Join columns into one JSON object a row; strings are quoted (none holds a quote), null becomes `null`."""
    pieces: list[pa.Array | str] = []
    for name, values in columns.items():
        text = values.cast(pa.string())
        if pa.types.is_string(values.type):
            text = pc.binary_join_element_wise('"', text, '"', "")
        pieces += [f'{"," if pieces else "{"}"{name}":', text.fill_null("null")]
    return pc.binary_join_element_wise(*pieces, "}\n", "")


def _csv(delimiter: str, **columns: pa.Array) -> tuple[pa.Array, str]:
    pieces: list[pa.Array | str] = []
    for values in columns.values():
        pieces += [values.cast(pa.string()).fill_null(""), delimiter]
    return pc.binary_join_element_wise(*pieces[:-1], "\n", ""), delimiter.join(columns) + "\n"


def _home_feed(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    propensity = pa.array(
        np.round(rows["propensity"].astype(np.float64), 8), mask=(rows["propensity"] < 0) | (rows["kind"] > 0)
    )
    lines = _json(
        uid=texts.user,
        sku=texts.item,
        ts=texts.ts,
        action=texts.kind,
        rid=texts.request,
        pos=texts.number("position"),
        prop=propensity,
    )
    return Path(f"{path}.jsonl.gz"), texts.lines(lines)


def _search(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    time = pc.strftime(texts.ts.cast(pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%SZ")
    lines = _json(
        user=texts.user,
        product=texts.item,
        time=time,
        type=texts.kind,
        request=texts.request,
        rank=texts.number("position"),
        q=texts.queries(),
    )
    return Path(f"{path}.jsonl.gz"), texts.lines(lines)


def _product_page(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    anchor = texts.catalogue.skus.take(texts.number("anchor"))
    stay = pa.array(np.round(rows["dwell"].astype(np.float64), 1), mask=rows["dwell"] < 0)
    lines, header = _csv(
        ",",
        visitor=texts.user,
        item=texts.item,
        at=texts.ts,
        event=texts.kind,
        req=texts.request,
        slot=texts.number("position"),
        page_of=anchor,
        stay=stay,
    )
    return Path(f"{path}.csv.gz"), texts.lines(lines, header)


def _cart(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    seconds = pc.divide(texts.ts, 1000)
    position = pa.array(rows["position"], mask=rows["kind"] > 1)
    lines, header = _csv(
        ";",
        customer=texts.user, article=texts.item, unix=seconds, act=texts.kind, req=texts.request, pos=position,
        qty=texts.quantities(), unit_price=texts.prices(),
    )  # fmt: skip
    return Path(f"{path}.csv.gz"), texts.lines(lines, header)


def _checkout(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    if path is not None:
        order = pa.array(rows["kind"] == 3)
        table = pa.table({
            "user_id": texts.user, "item_id": texts.item, "kind": texts.kind,
            "event_time": texts.ts.cast(pa.timestamp("ms", "UTC")),
            "request_id": pc.if_else(order, pc.binary_join_element_wise("o", texts.request, "-"), texts.request),
            "position": pa.array(rows["position"].astype(np.int32), mask=rows["kind"] == 3),
            "quantity": texts.quantities(), "amount": texts.prices(),
        })  # fmt: skip
        pq.write_table(table, f"{path}.parquet", compression="zstd", compression_level=1)
    return Path(f"{path}.parquet"), None


def _campaign(rows: Rows, texts: _Texts, zone: ZoneInfo, path: Path | None) -> tuple[Path, Content]:
    seconds = pc.divide(texts.ts, 1000).cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("s", zone.key))
    names = pa.array([*CAMPAIGN_PAGES, "flash_x"])
    page = names.take(pa.array(np.where(texts.has("unknown_scenario"), len(CAMPAIGN_PAGES), rows["page"])))
    lines, header = _csv(
        ",", uid=texts.user, sku=texts.item, local_time=pc.strftime(seconds, "%Y-%m-%d %H:%M:%S"), page=page, what=texts.kind,
        visit=texts.request, tile=texts.number("position"),
    )  # fmt: skip
    return Path(f"{path}.csv.gz"), texts.lines(lines, header)


_WRITERS: dict[str, Callable[[Rows, _Texts, ZoneInfo, Path | None], tuple[Path, Content]]] = dict(
    zip(SOURCES, (_home_feed, _search, _product_page, _cart, _checkout, _campaign), strict=True)
)
