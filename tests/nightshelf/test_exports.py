"""Where exports may write: each into a folder of its own, which is not nightshelf's."""

import datetime as dt
import re
from pathlib import Path

import pytest

from nightshelf import paths
from nightshelf.errors import InputError
from nightshelf.exports import OWN_FOLDERS
from nightshelf.identity import key_file

DAY = dt.date(2026, 2, 5)


@pytest.fixture
def exporting(tiny_shop):
    """Return exporting(*folders): a shop that exports to each of them."""

    def load(*folders):
        return tiny_shop(days=0, exports=[{"to": "parquet", "folder": str(folder)} for folder in folders])

    return load


@pytest.mark.parametrize("folder", [".", "drop/..", "..", "/", "x/../../home"])
def test_a_folder_that_holds_the_home_is_refused(exporting, tmp_path, folder):
    message = rf"^{tmp_path}/tiny.yaml: exports: folder {re.escape(folder)} is not its own: {tmp_path}/home is nightshelf's; name"
    with pytest.raises(InputError, match=message) as refused:
        exporting(folder)
    assert "e.g. drop" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("own", OWN_FOLDERS)
def test_nightshelfs_own_folders_are_refused_with_all_below_them(exporting, tmp_path, own):
    for folder in (own, f"./{own}/drop", tmp_path / "home" / own):
        with pytest.raises(InputError, match=f"is not its own: {tmp_path}/home/{own} is nightshelf's"):
            exporting(folder)


def test_a_link_to_a_folder_of_nightshelf_is_refused(exporting, tmp_path):
    (tmp_path / "home" / "keys").mkdir(parents=True)
    (tmp_path / "home" / "drop").symlink_to("keys")
    with pytest.raises(InputError, match=r"folder drop is not its own: .*keys is nightshelf's"):
        exporting("drop")


def test_the_home_of_the_environment_counts(exporting, tmp_path, monkeypatch):
    exporting(tmp_path / "elsewhere" / "keys")
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere/keys is nightshelf's"):
        exporting(tmp_path / "elsewhere" / "keys")


@pytest.mark.parametrize(
    ("one", "other"), [("drop", "x/../drop"), ("drop", "drop/items"), ("a/b/c", "a"), ("drop", "../home/drop")]
)
def test_two_exports_in_one_folder_or_one_in_the_other_are_refused(exporting, one, other):
    message = f"exports: folder {one} and folder {other} are one, or one lies in the other; give each its own"
    with pytest.raises(InputError, match=message):
        exporting(one, other)


def test_folders_side_by_side_are_fine(exporting, tmp_path):
    shop = exporting("drop", "drop_2", "keys_2", "exports/users", "exports/items", tmp_path / "beside")
    assert shop.exports[-1].below(shop.home) == tmp_path / "beside"


def test_all_that_is_kept_below_a_home_is_known(tiny_shop, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shop = tiny_shop(days=0)
    kept = [
        paths.run_dir(shop, "items", "r"),
        paths.artifact_dir(shop),
        paths.shelf_parts_dir(shop),
        paths.scratch_dir(shop),
    ]
    kept += [of_night(shop, DAY) for of_night in (paths.checkpoint_dir, paths.report_file, paths.data_docs_file)]
    kept += [paths.truth_dir(shop), Path(paths.tracking_uri(shop).removeprefix("sqlite:///")), key_file(shop)]
    assert {path.relative_to(shop.home).parts[0] for path in kept} <= set(OWN_FOLDERS)
