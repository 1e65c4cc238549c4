"""The doctor's findings, on a machine and a shop with known faults."""

import gzip
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightshelf.config import load_shop
from nightshelf.engines import Spark
from nightshelf.errors import InputError
from nightshelf.identity import ensure_key
from pipelines import doctor
from pipelines.warehouse import Warehouse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the demo's shop file, with its home in a folder of the test, and one day of each log."""
    monkeypatch.delenv("NIGHTSHELF_HOME", raising=False)
    content: dict[str, Any] = yaml.safe_load((ROOT / "conf/shops/demo.yaml").read_text())
    content["home"] = str(tmp_path / "home")
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(content))
    for source in content["sources"]:
        write_log(tmp_path / "home", source["path"], "2026-02-14")
    return path


def write_log(home: Path, pattern: str, day: str) -> None:
    file = home / pattern.replace("{event_date}", day).replace("*", "part-0")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(b"{}\n"))


def findings(shop_file: Path) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.diagnose(shop_file)}


def test_a_shop_with_its_logs_is_well(shop_file: Path) -> None:
    found = findings(shop_file)
    shop_checks = [name for name in found if name.startswith(("log ", "shop", "identity", "warehouse", "mlflow"))]
    assert len(shop_checks) == 10
    assert [found[name] for name in shop_checks if not found[name].is_ok] == []
    assert found["log search_log"].seen == "up to 2026-02-14"


def test_the_doctor_changes_nothing(shop_file: Path) -> None:
    before = sorted(shop_file.parent.rglob("*"))
    doctor.diagnose(shop_file)
    assert sorted(shop_file.parent.rglob("*")) == before


def test_a_log_that_stopped_and_one_that_is_missing(shop_file: Path, tmp_path: Path) -> None:
    shop = load_shop(shop_file)
    write_log(shop.home, "raw/search/{event_date}/*.jsonl.gz", "2026-02-15")
    (shop.home / "raw/cart/2026-02-14/part-0.csv.gz").unlink()
    found = findings(shop_file)
    assert found["log search_log"].is_ok
    assert found["log home_feed_log"].seen == "ends on 2026-02-14, others on 2026-02-15"
    assert "no file" in found["log cart_log"].seen
    assert found["log cart_log"].remedy


def test_a_wrong_shop_file_does_not_hide_the_machine(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("shop: x\ntimezon: UTC\n")
    found = findings(tmp_path / "shop.yaml")
    assert not found["shop file"].is_ok
    assert found["python"].is_ok


def test_a_key_that_others_can_read(shop_file: Path) -> None:
    shop = load_shop(shop_file)
    key = ensure_key(shop)
    assert doctor.check_key(shop).is_ok
    key.chmod(0o444)
    assert doctor.check_key(shop).remedy == f"chmod 0400 {key}"


def test_a_key_that_is_gone_or_cut_while_its_tables_are_there(shop_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = load_shop(shop_file)
    key = ensure_key(shop)
    key.chmod(0o600)
    key.write_bytes(b"")
    assert (doctor.check_key(shop).seen, doctor.check_key(shop).is_ok) == (f"{key} has 0 bytes", False)
    key.unlink()
    (shop.home / "warehouse").mkdir()
    (shop.home / "warehouse" / "catalog.db").touch()
    assert (doctor.check_key(shop).seen, doctor.check_key(shop).is_ok) == (f"{key} is gone", False)
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", "k" * 40)
    assert doctor.check_key(shop).is_ok


def test_a_broken_catalogue_is_a_finding(shop_file: Path) -> None:
    catalogue = load_shop(shop_file).home / "warehouse" / "catalog.db"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_bytes(b"this is no database" * 100)
    assert not doctor.check_warehouse(load_shop(shop_file)).is_ok


def test_a_home_of_another_shop_is_told_with_what_to_do(shop_file: Path) -> None:
    Warehouse(load_shop(shop_file))
    shop_file.write_text(shop_file.read_text().replace("shop: demo", "shop: mine"))
    found = findings(shop_file)["warehouse"]
    assert found.seen.endswith("holds the tables of shop 'demo', and the shop file says 'mine'")
    assert found.remedy.startswith("give each shop a `home` of its own")


def test_a_tracker_that_does_not_answer(shop_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ana:sec@ret@127.0.0.1:9")
    found = doctor.check_tracker(load_shop(shop_file))
    assert (found.seen, found.is_ok) == ("http://***@127.0.0.1:9", False)


@pytest.mark.parametrize(
    ("spark", "what", "seen", "is_ok"),
    [
        ({"engine": "sail"}, "sail", version("pysail"), True),
        ({"remote": "sc://127.0.0.1:9/;token=secret"}, "spark", "127.0.0.1:9 does not answer", False),
        ({}, "java", "java", True),
    ],
)
def test_the_engine_that_the_shop_names_is_looked_at(
    shop_file: Path, spark: dict[str, str], what: str, seen: str, is_ok: bool
) -> None:
    found = doctor.check_engine(load_shop(shop_file).model_copy(update={"spark": Spark.model_validate(spark)}))
    assert (found.what, found.is_ok) == (what, is_ok)
    assert seen in found.seen and "secret" not in found.seen


def test_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        monkeypatch.setenv("AIRFLOW_PORT", str(port))
        (airflow, _) = doctor.check_ports()
    assert airflow == doctor.Finding(f"port {port}", "taken", "end its owner, or set AIRFLOW_PORT to another")
    monkeypatch.setenv("AIRFLOW_PORT", "x")
    assert not doctor.check_ports()[0].is_ok


@pytest.mark.parametrize(
    ("told", "release"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("", None),
    ],
)
def test_java_tells_its_release(told: str, release: int | None) -> None:
    assert doctor.java_release(told) == release


def test_pins_are_compared_by_their_normal_names() -> None:
    lock = ["torch==2.13.0", "Flask_Login==0.6", "pyyaml==6.0.3", "# a comment", "absent==1"]
    installed = {"torch": "2.13.0+cpu", "flask-login": "0.6", "pyyaml": "6.0.2"}
    assert doctor.differing_pins(lock, installed) == ["pyyaml==6.0.3", "absent==1"]


def test_the_table_ends_in_one_line_and_code_2(
    shop_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="things are wrong") as error:
        doctor.main(shop_file)
    assert error.value.exit_code == 2
    assert "unset MLFLOW_TRACKING_URI" in capsys.readouterr().out
