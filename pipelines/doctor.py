"""`nightshelf doctor`: everything that is missing or wrong at once, each with its remedy. It changes nothing."""

import glob
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from nightshelf.config import Shop, load_shop
from nightshelf.errors import InputError, without_login
from nightshelf.identity import KEY_BYTES, key_file
from nightshelf.paths import source_path, tracking_uri, warehouse_dir
from pipelines.processes import answer_of, living_pid
from pipelines.services import STATE, is_free, read_ports

ROOT = Path(__file__).resolve().parents[1]
DISK_GB = 6
MEMORY_GB = 4
CONNECT_PORT = 15002  # Spark Connect's own
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was seen, and the remedy if it is wrong (empty if it is well)."""

    what: str
    seen: str
    remedy: str = ""

    @property
    def is_ok(self) -> bool:
        """Say whether it is well."""
        return not self.remedy


def diagnose(shop_file: Path) -> list[Finding]:
    """Look at the machine, the environments, and the shop's logs, key, tables and tracker."""
    findings = [check_python(), check_memory()]
    findings += [check_environment(name) for name in ("jobs", "airflow")]
    findings += check_ports()
    try:
        shop = load_shop(shop_file)
    except InputError as error:
        return [
            *findings,
            check_java(),
            Finding("shop file", str(error), "correct the file; the other checks of the shop wait for it"),
        ]
    findings += [
        Finding("shop file", f"{shop_file}: {len(shop.sources)} sources, {len(shop.scenarios)} scenarios"),
        check_engine(shop),
        check_disk(shop.home),
    ]
    findings += check_sources(shop)
    return [*findings, check_key(shop), check_warehouse(shop), check_tracker(shop)]


def check_python() -> Finding:
    """Look at the interpreter that runs this."""
    seen = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", seen, "" if sys.version_info[:2] == (3, 11) else "install Python 3.11 and run `make env`")


def check_java() -> Finding:
    """Look at the Java that Spark will start."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else "java"
    remedy = "install Java 17 or newer (Debian: apt-get install default-jre-headless), or set JAVA_HOME"
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30).stderr
    except OSError:
        return Finding("java", f"no {java}", remedy)
    release = java_release(told)
    return Finding("java", f"{java} {release or told.strip()[:40]}", "" if release and release >= 17 else remedy)


def check_engine(shop: Shop) -> Finding:
    """Look at what the feature jobs will run on: Java for Spark, the package for Sail, or a server that listens."""
    if shop.spark.engine == "sail":
        return _check_sail(shop)
    if shop.spark.remote is None:
        return check_java()
    place = urlsplit(shop.spark.remote.split("/;")[0])
    try:
        socket.create_connection((place.hostname or "", place.port or CONNECT_PORT), timeout=5).close()
    except OSError as error:
        return Finding(
            "spark", f"{place.netloc} does not answer ({error})", "start the server, or correct `spark.remote`"
        )
    return Finding("spark", f"a server listens at {place.netloc}")


def _check_sail(shop: Shop) -> Finding:
    from feature_jobs.sail import check_sail

    try:
        check_sail(shop)
        return Finding("sail", metadata.version("pysail"))
    except InputError as error:
        return Finding("sail", str(error), "as it says")
    except metadata.PackageNotFoundError:
        return Finding("sail", "not installed", "run `make env`, or take `engine: sail` out of the shop file")


def java_release(told: str) -> int | None:
    """Return the release that `java -version` told: 8 for 1.8.0, 17 for 17.0.15."""
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found[1]) if found else None


def check_memory() -> Finding:
    """Look at the memory that is free now."""
    import psutil

    gb = psutil.virtual_memory().available / 2**30
    return Finding(
        "memory",
        f"{gb:.1f} GB available",
        "" if gb >= MEMORY_GB else f"a night needs {MEMORY_GB} GB: end other programs",
    )


def check_disk(home: Path) -> Finding:
    """Look at the disk below a shop's home."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    gb = shutil.disk_usage(existing).free / 2**30
    remedy = f"make room below {existing}; a home and the environments need {DISK_GB} GB"
    return Finding("disk", f"{gb:.0f} GB free at {existing}", "" if gb >= DISK_GB else remedy)


def check_environment(name: str) -> Finding:
    """Compare what is installed in .venv/NAME with requirements/NAME.lock."""
    what = f"environment {name}"
    site = next((ROOT / ".venv" / name).glob("lib/python3*/site-packages"), None)
    if site is None:
        return Finding(what, f"no .venv/{name}", "run `make env`")
    installed = {_normal(found.metadata["Name"]): found.version for found in metadata.distributions(path=[str(site)])}
    wrong = differing_pins((ROOT / "requirements" / f"{name}.lock").read_text().splitlines(), installed)
    remedy = f"rm .venv/{name}/ready && make env" if wrong else ""
    return Finding(
        what,
        f"{len(wrong)} packages differ from the lock, e.g. {wrong[0]}" if wrong else f"{len(installed)} packages",
        remedy,
    )


def differing_pins(lock: Iterable[str], installed: dict[str, str]) -> list[str]:
    """Return the pins (`name==version`) of a lock that are not what is installed; a build's suffix (+cpu) is no difference."""
    pins = (line.split("==") for line in lock if "==" in line)
    return [f"{name}=={version}" for name, version in pins if installed.get(_normal(name), "").split("+")[0] != version]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_ports() -> list[Finding]:
    """Look at the ports of `make up`: free, or held by our own servers."""
    try:
        ports = read_ports(os.environ)
    except InputError as error:
        return [Finding("ports", str(error), "unset it, or set it to a free port")]
    owners = {"AIRFLOW_PORT": "api-server", "MLFLOW_PORT": "mlflow"}
    findings = []
    for variable, port in ports.items():
        ours = living_pid(STATE / f"{owners[variable]}.pid") is not None
        free = ours or is_free(port)
        seen = "ours" if ours else "free" if free else "taken"
        findings.append(Finding(f"port {port}", seen, "" if free else f"end its owner, or set {variable} to another"))
    return findings


def check_sources(shop: Shop) -> list[Finding]:
    """Look for each source's files; a dated source that ends earlier than the others is late or has stopped."""
    newest = {
        source.name: newest_day(source_path(shop, source.path)) for source in shop.sources if "://" not in source.path
    }
    last = max((day for day in newest.values() if day), default="")
    findings = []
    for source in shop.sources:
        what, place = f"log {source.name}", source_path(shop, source.path)
        if source.name not in newest:
            findings.append(Finding(what, f"{place} is remote, not looked at"))
        elif newest[source.name] is None:
            findings.append(
                Finding(what, f"no file at {place}", "bring the log, correct `path`, or (demo) run `make night`")
            )
        elif source.is_dated and newest[source.name] != last:
            findings.append(
                Finding(what, f"ends on {newest[source.name]}, others on {last}", "ask who writes it, or wait for it")
            )
        else:
            findings.append(Finding(what, f"up to {newest[source.name]}" if source.is_dated else "there"))
    return findings


def newest_day(pattern: str) -> str | None:
    """Return the newest `{event_date}` with files at a local pattern, "" if the pattern has no date, None for no file."""
    files = glob.glob(pattern.replace("{event_date}", "*"))  # noqa: PTH207  # a pattern may be absolute
    if not files:
        return None
    if "{event_date}" not in pattern:
        return ""
    at = len(pattern.split("{event_date}")[0])
    return max((found[0] for file in files if (found := _DATE.match(file[at : at + 10]))), default=None)


def check_key(shop: Shop) -> Finding:
    """Look at the file of the key under which user ids are hashed."""
    path = key_file(shop)
    if not path.exists():
        if os.environ.get(shop.privacy.key_env):
            return Finding("identity key", f"no file; the next night writes that of ${shop.privacy.key_env}")
        if (warehouse_dir(shop) / "catalog.db").exists():
            return Finding("identity key", f"{path} is gone", "bring it back from a copy: users are known by it")
        return Finding("identity key", "none yet; the first night makes it")
    size, mode = path.stat().st_size, stat.S_IMODE(path.stat().st_mode)
    if size < KEY_BYTES:
        return Finding("identity key", f"{path} has {size} bytes", "bring the whole key back from a copy")
    return Finding("identity key", f"{path} mode {mode:04o}", "" if mode & 0o377 == 0 else f"chmod 0400 {path}")


def check_warehouse(shop: Shop) -> Finding:
    """Read the tables' list of nights."""
    if not (warehouse_dir(shop) / "catalog.db").exists():
        return Finding("warehouse", "none yet; the first night makes it")
    from pipelines.warehouse import Warehouse

    try:
        days = Warehouse(shop).partitions("recommendations")
    except InputError as error:
        told, _, remedy = str(error).partition("; ")
        return Finding("warehouse", told, remedy)
    except Exception as error:  # whatever the catalogue's library raises is a finding, not a crash of the doctor
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        return Finding("warehouse", told, f"restore {warehouse_dir(shop)} from a copy, or move it away")
    return Finding(
        "warehouse", f"{len(days)} nights of recommendations, the last {days[-1]}" if days else "no recommendations yet"
    )


def check_tracker(shop: Shop) -> Finding:
    """Ask MLflow's server, or look at its database."""
    uri = tracking_uri(shop)
    if uri.startswith("http"):
        answers = answer_of(f"{without_login(uri, '').rstrip('/')}/health") == "OK"
        return Finding("mlflow", without_login(uri), "" if answers else "start it, or unset MLFLOW_TRACKING_URI")
    file = Path(uri.removeprefix("sqlite:///"))
    return Finding("mlflow", str(file) if file.exists() else "none yet; the first night makes it")


def main(shop_file: Path) -> None:
    """Print the findings as a table.

    Raises:
        InputError: something is wrong.
    """
    from rich.console import Console
    from rich.table import Table

    findings = diagnose(shop_file)
    table = Table("", "what", "seen", "remedy", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(
            "ok" if finding.is_ok else "WRONG",
            finding.what,
            finding.seen,
            finding.remedy,
            style=None if finding.is_ok else "bold red",
        )
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    wrong = sum(not finding.is_ok for finding in findings)
    if wrong:
        raise InputError(f"{wrong} of {len(findings)} things are wrong; the remedies are in the table")
