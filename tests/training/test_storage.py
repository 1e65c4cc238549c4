"""Columns in mapped files: what they hold, how they are read ahead, and that a training does not notice."""

import mmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nightshelf.errors import EngineError
from training import storage
from training.data import load_examples
from training.storage import Storage, free_memory
from training.stretches import days_together, read_ahead, stretches, warn_of_slow_reads
from training.train_ranker import train_ranker


def test_a_mapped_column_is_like_one_in_memory_and_leaves_no_file(tmp_path):
    mapped = Storage(tmp_path / "scratch", room=1)
    column = mapped.zeros((1000, 3), np.float32)
    assert mapped.is_mapped
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


@given(days=st.lists(st.integers(0, 6), min_size=1, max_size=60), gb=st.integers(1, 40), size=st.integers(1, 40))
def test_stretches_hold_every_chunk_once_and_no_day_in_two(days, gb, size):
    chunks = torch.tensor(days)
    together = days_together(len(set(days)), size * 10**9, gb)
    found, again = (stretches(chunks, together, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.cat(found).sort().values.tolist() == list(range(len(days)))
    assert [part.tolist() for part in found] == [part.tolist() for part in again]
    of_parts = [set(chunks[part].tolist()) for part in found]
    assert sum(map(len, of_parts)) == len(set(days))
    assert len(set(days)) == 1 or max(map(len, of_parts)) <= max(1, len(set(days)) * gb / size)
    if size <= gb:
        assert torch.equal(found[0], torch.arange(len(days)))


def test_columns_that_are_shuffled_in_less_memory_than_they_need_are_told_with_what_fits(tmp_path, caplog):
    for room, gb in ((3 * 10**9, 1), (10**8, 0.03)):
        warn_of_slow_reads(Storage(tmp_path, room=room, size=2 * 10**9), gb)
    warn_of_slow_reads(Storage(size=2 * 10**9), 4)
    assert not caplog.records
    warn_of_slow_reads(Storage(tmp_path, room=3 * 10**9, size=2 * 10**9), 4)
    assert "columns of 2.0 GB are shuffled together, and memory has room for 1.0 GB" in caplog.text
    assert "set shuffle_gb: 1 in the recipe" in caplog.text


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


def test_a_training_from_files_gives_the_weights_of_one_in_memory_and_days_that_come_apart_their_own(
    demo_shop, night, recipe, monkeypatch, tmp_path
):
    shop, trained = demo_shop.model_copy(update={"home": tmp_path}), {}
    for free in (2**40, 0):
        monkeypatch.setattr(storage, "free_memory", lambda free=free: free)
        for gb in (4, 1e-6):
            out = tmp_path / f"{free} {gb}"
            report = train_ranker(shop, recipe(max_epochs=1, shuffle_gb=gb), night.inputs, out)
            trained[free, gb] = (out / "weights.safetensors").read_bytes(), report.best_validation_loss
    for gb in (4, 1e-6):
        assert trained[2**40, gb] == trained[0, gb]
    assert trained[0, 4][0] != trained[0, 1e-6][0]
    assert trained[0, 1e-6][1] < 1  # better than the base rates
