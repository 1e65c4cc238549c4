"""HTML pages that are complete in themselves: no server, no script, nothing loaded from elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def page_template(name: str) -> "Template":
    """Return a template of this folder; what it shows is escaped, and a name that it lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "share": share, "number": number}
    return environment.get_template(name)


def write_page(target: Path, page: str, run_id: str) -> None:
    """Write a page so that a reader sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{run_id}")
    fresh.write_text(page, encoding="utf-8")
    fresh.replace(target)


def count(value: float | None) -> str:
    """Return a number with its thousands apart, or a dash."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def share(value: float | None) -> str:
    """Return a share as a percentage, or a dash."""
    return "–" if value is None else f"{100 * value:.3g}\N{NARROW NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """Return a number in four digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"
