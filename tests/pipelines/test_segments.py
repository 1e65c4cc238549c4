"""Users without a history: who is in which segment, and that a segment is ranked as a user with these attributes alone."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines import segments
from pipelines.segments import segments_of

USERS = {"a": "young", "b": "old", "c": None, "d": "young", "e": "ancient", "f": "young"}


@pytest.fixture
def peopled(night, publish):
    publish(night, "users", [{"user_key": user, "user_age_band": band} for user, band in USERS.items()])
    words = [("user_age_band", "young", 17), ("user_age_band", "old", 18), ("brand", "ancient", 19)]
    publish(night, "vocabularies", [{"feature": f, "value": v, "index": i} for f, v, i in words])
    return night


def test_a_segment_has_who_shares_its_attributes(peopled):
    found = segments_of(peopled, pa.array(["f", "nobody"]))
    assert found.fields.tolist() == [[17], [18]]
    assert found.members == [["a", "d"], ["b"]]
    assert found.others == ["c", "e"]  # of whom nothing is told, or nothing that the vocabulary knows


def test_rare_segments_are_left_to_the_unknown_user(peopled, monkeypatch):
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 1)
    found = segments_of(peopled, pa.array([], pa.string()))
    assert (found.fields.tolist(), found.members, found.others) == ([[17]], [["a", "d", "f"]], ["b", "c", "e"])


def test_where_everybody_is_known_there_is_none(peopled):
    found = segments_of(peopled, pa.array(list(USERS)))
    assert (found.members, found.others, found.fields.size) == ([], [], 0)


def test_strangers_are_read_behind_the_users():
    """ShelfFeatures.with_strangers: the fields that are told, and of all others what the unknown user has."""
    from training.shelf_features import ShelfFeatures

    nothing = dict.fromkeys(
        ("item_ids", "user_names", "histories", "item_fields", "target_dense", "target_names", "catalogue", "vocabularies",
         "scenarios", "events")
    )  # fmt: skip
    features = ShelfFeatures(
        user_keys=["u1"],
        user_field_names=["user_index", "user_age_band_index", "user_brand_index"],
        user_fields=np.array([[0, 0, 0], [7, 8, 9]], np.int32),
        user_dense=np.array([[0.5, 30.0], [2.0, 1.0]], np.float32),
        user_history=np.array([0, 1]),
        **nothing,
    )
    grown = features.with_strangers({"user_age_band_index": np.array([17, 18])})
    assert grown.user_fields.tolist() == [[0, 0, 0], [7, 8, 9], [0, 17, 0], [0, 18, 0]]
    assert grown.user_dense.tolist() == [[0.5, 30.0], [2.0, 1.0], [0.5, 30.0], [0.5, 30.0]]
    assert grown.user_history.tolist() == [0, 1, 0, 0]
    assert features.with_strangers({}).user_fields.tolist() == features.user_fields.tolist()
