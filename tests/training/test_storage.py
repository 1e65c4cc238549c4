"""Columns in mapped files: what they hold, how they are read ahead, and that a training does not notice."""

import mmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nightshelf.errors import EngineError
from training import storage
from training.batches import Dataset
from training.checkpoints import training_origin
from training.data import load_examples
from training.storage import Storage, free_memory
from training.stretches import days_together, read_ahead, stretches
from training.train_ranker import train_ranker


def test_a_mapped_column_is_like_one_in_memory_and_leaves_no_file(tmp_path):
    mapped = Storage(tmp_path / "scratch", room=1)
    column = mapped.zeros((1000, 3), np.float32)
    assert mapped.is_mapped
    assert mapped.size == column.nbytes
    assert not column.any()
    column[5:7] = 2
    mapped.ask_for(column, 5, 7)
    mapped.ask_for(column, 999, 1000)
    assert torch.from_numpy(column)[5:7].sum() == 12
    assert mapped.zeros((0, 3), np.int8).shape == (0, 3)
    assert list((tmp_path / "scratch").iterdir()) == []
    Storage().ask_for(column, 0, 1000)  # not of this storage: nothing to do


def test_a_disk_without_room_is_told_at_once(tmp_path):
    with pytest.raises(EngineError, match=r"no room for a column of .* GB .* free that much disk"):
        Storage(tmp_path).zeros((2**50, 2), np.float32)


def test_a_container_that_has_less_than_the_machine_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_CGROUP", tmp_path)
    of_machine = free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert free_memory() == pytest.approx(of_machine, rel=0.2)
    (tmp_path / "memory.max").write_text(f"{300 * mmap.PAGESIZE}\n")
    (tmp_path / "memory.current").write_text(f"{100 * mmap.PAGESIZE}\n")
    assert free_memory() == 200 * mmap.PAGESIZE
    assert not Storage.for_columns(100 * mmap.PAGESIZE, tmp_path).is_mapped
    assert Storage.for_columns(100 * mmap.PAGESIZE + 2, tmp_path).is_mapped


def test_processes_decide_alike_by_the_one_with_the_least_memory(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(storage, "free_memory", lambda: 4000)
    monkeypatch.setattr(storage, "ranks_here", lambda: 2)
    monkeypatch.setattr(storage, "every_rank", lambda text: asked.append(text) or [text, "600"])
    assert Storage.for_columns(301, tmp_path).room == 300
    assert not Storage.for_columns(300, tmp_path).is_mapped
    assert asked == ["2000", "2000"]  # of two on one machine each has a half


@given(days=st.lists(st.integers(0, 6), min_size=1, max_size=60), room=st.integers(0, 40), size=st.integers(1, 10))
def test_stretches_hold_every_chunk_once_and_no_day_in_two(tmp_path_factory, days, room, size):
    chunks, stored = torch.tensor(days), Storage(tmp_path_factory.getbasetemp(), room)
    stored.size = size
    together = days_together(len(set(days)), stored)
    found, again = (stretches(chunks, together, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.cat(found).sort().values.tolist() == list(range(len(days)))
    assert [part.tolist() for part in found] == [part.tolist() for part in again]
    of_parts = [set(chunks[part].tolist()) for part in found]
    assert sum(map(len, of_parts)) == len(set(days))
    assert len(set(days)) == 1 or max(map(len, of_parts)) <= max(1, len(set(days)) * room / (3 * size))
    in_memory = stretches(chunks, days_together(len(set(days)), Storage()), torch.Generator())
    assert torch.equal(in_memory[0], torch.arange(len(days)))


def test_each_day_is_asked_for_once_and_before_it_is_needed():
    days = torch.arange(1000) // 10
    batches, asked = list(torch.arange(1000).split(2)), []
    given = []
    for batch in read_ahead(batches, days, asked.append):
        given.append(batch)
    assert torch.equal(torch.cat(given), torch.arange(1000))
    assert asked == list(range(100))
    early = read_ahead(batches, days, asked.append)
    next(early)
    early.close()
    assert asked[100:] == list(range(20))  # those of the first hundred batches


def test_columns_in_files_are_those_in_memory(demo_shop, night, monkeypatch, tmp_path):
    resident = load_examples(demo_shop, night.inputs)
    shop = demo_shop.model_copy(update={"home": tmp_path})
    monkeypatch.setattr(storage, "free_memory", lambda: 0)
    mapped = load_examples(shop, night.inputs)
    assert mapped.storage.is_mapped
    assert not resident.storage.is_mapped
    for name in ("user_dense", "target_dense", "user_fields", "labels", "masks", "history", "catalogue"):
        assert np.array_equal(getattr(resident, name), getattr(mapped, name)), name
    for name in ("items", "events", "scenarios", "ages", "shown", "shown_counts", "shown_ages", "keys"):
        assert np.array_equal(getattr(resident.histories, name), getattr(mapped.histories, name)), name


def test_a_checkpoint_of_other_batches_is_not_gone_on_from(demo_shop, night, build, recipe, monkeypatch, tmp_path):
    model, spec = build(recipe())
    origins = []
    for room in (1, 2**40):
        made = classmethod(lambda cls, size, scratch, room=room: cls(tmp_path, room))
        monkeypatch.setattr(Storage, "for_columns", made)
        examples = load_examples(demo_shop, night.inputs)
        Dataset(examples, spec)
        origins.append(training_origin(model, examples))
    assert {name for name, told in origins[0].items() if origins[1][name] != told} == {"days together"}


def test_a_training_from_files_gives_the_same_weights_where_they_fit_and_a_model_where_they_do_not(
    demo_shop, night, recipe, monkeypatch, tmp_path
):
    shop, trained = demo_shop.model_copy(update={"home": tmp_path}), {}
    rooms = {"memory": None, "files": 2**40, "files, a day at a time": 1}
    for name, room in rooms.items():
        made = classmethod(lambda cls, size, scratch, room=room: cls() if room is None else cls(scratch, room))
        monkeypatch.setattr(Storage, "for_columns", made)
        report = train_ranker(shop, recipe(max_epochs=1), night.inputs, tmp_path / name)
        trained[name] = (tmp_path / name / "weights.safetensors").read_bytes(), report.best_validation_loss
    assert trained["memory"] == trained["files"]
    assert trained["memory"][0] != trained["files, a day at a time"][0]
    assert trained["files, a day at a time"][1] < 1  # better than the base rates
