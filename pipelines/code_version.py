"""The version of the code that made a row: a hash of the packages' own source files, the same in a clone and an image."""

import functools
import hashlib
from pathlib import Path

_PACKAGES = ("nightshelf", "feature_jobs", "training", "pipelines")


@functools.cache
def code_version() -> str:
    """Return 12 hexadecimal digits of the SHA-256 over every source file of nightshelf."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]
