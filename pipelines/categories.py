"""The categories of a catalogue's items, as the tree that the levels of their paths make."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Categories:
    """The finest category of each item of the catalogue: its row [items] of the tree [C, 3], and the paths of the rows."""

    of_item: np.ndarray
    tree: np.ndarray
    paths: list[tuple[str, ...]]

    @property
    def names(self) -> list[str | None]:
        """Return the last level of each path; None for goods without a category."""
        return [path[-1] if path else None for path in self.paths]

    def shared(self, one: int, other: int) -> str:
        """Return the last level that two rows share, or an empty text."""
        both = [a for a, b in zip(self.paths[one], self.paths[other], strict=False) if a == b]
        return both[-1] if both else ""

    @classmethod
    def of(cls, items: pa.Table) -> "Categories":
        """Return those of the table `items`; items without any share a row without a name."""
        levels = [items[f"category_{level}"].combine_chunks().dictionary_encode() for level in (1, 2, 3)]
        codes = np.stack(
            [pc.fill_null(level.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64) for level in levels],
            axis=1,
        )
        tree, of_item = np.unique(codes, axis=0, return_inverse=True)
        words = [level.dictionary.to_pylist() for level in levels]
        paths = [tuple(words[at][code] for at, code in enumerate(row) if code >= 0) for row in tree.tolist()]
        return cls(of_item.ravel(), tree, paths)
