"""The command line: the same commands for a person, CI and Airflow.

Exit codes: 0 done; 2 the input or the configuration is wrong; 3 a gate said no; 4 an engine or service failed.
"""

import atexit
import datetime as dt
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from nightshelf.config import Shop, load_shop
from nightshelf.dates import last_complete_day, parse_as_of_date
from nightshelf.errors import InputError, NightshelfError
from nightshelf.logs import configure_logging, get_logger

# Imports make objects by the hundred thousand, and hardly any is garbage: looking for it every 700 costs a tenth of a start.
_COLLECT_EVERY = 100_000

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)

ShopFile = Annotated[Path, typer.Option("--shop", envvar="NIGHTSHELF_SHOP", help="the shop file")]
DEMO = Path("conf/shops/demo.yaml")
AsOfDate = Annotated[
    str, typer.Option("--as-of-date", help="the last complete day that the night may know, YYYY-MM-DD")
]
Retrain = Annotated[
    bool, typer.Option("--retrain/--no-retrain", help="train a challenger, or keep the champion as it is")
]
Scenarios = Annotated[
    list[str] | None, typer.Option("--scenario", help="make shelves for this scenario alone; may be repeated")
]


@app.command()
def run(
    as_of_date: AsOfDate,
    shop: ShopFile = DEMO,
    first: Annotated[str, typer.Option("--from", help="the stage to begin with")] = "",
    last: Annotated[str, typer.Option("--until", help="the stage to end with")] = "",
    retrain: Retrain = True,
    scenario: Scenarios = None,
) -> None:
    """Run all stages of one night in order, without Airflow.

    Example: nightshelf run --shop conf/shops/demo.yaml --as-of-date 2026-02-14
    """
    from pipelines.night import run_night

    run_night(*_night(shop, as_of_date), first, last, retrain, tuple(scenario or ()))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="the stage, e.g. clean")],
    as_of_date: AsOfDate,
    shop: ShopFile = DEMO,
    retrain: Retrain = True,
    scenario: Scenarios = None,
) -> None:
    """Run one stage of one night: what each Airflow task runs.

    Example: nightshelf stage clean --shop conf/shops/demo.yaml --as-of-date 2026-02-14
    """
    from pipelines.night import run_night

    run_night(*_night(shop, as_of_date), name, name, retrain, tuple(scenario or ()))


@app.command()
def shelves(
    share: Annotated[str, typer.Argument(help="which share of the users, e.g. 2/4: the second of four")],
    as_of_date: AsOfDate,
    shop: ShopFile = DEMO,
    scenario: Scenarios = None,
) -> None:
    """Make the shelves of a share of a night's users beforehand, beside the other shares; the stage `recommend` takes them over.

    Example: nightshelf shelves 2/4 --shop conf/shops/demo.yaml --as-of-date 2026-02-14
    """
    from pipelines.night import check_scenarios
    from pipelines.serve_parts import serve_share

    loaded, day = _night(shop, as_of_date)
    check_scenarios(loaded, tuple(scenario or ()))
    serve_share(loaded, day, share, tuple(scenario or ()))


@app.command()
def simulate(
    shop: ShopFile = DEMO,
    days: Annotated[int, typer.Option(min=1, max=400)] = 14,
    users: Annotated[int, typer.Option(min=10)] = 20_000,
    items: Annotated[int, typer.Option(min=20)] = 5_000,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    first_day: Annotated[str, typer.Option(help="the first day of logs, YYYY-MM-DD")] = "2026-02-01",
) -> None:
    """Write a simulated shop's raw logs, with a known truth behind them.

    Example: nightshelf simulate --shop conf/shops/demo.yaml --days 14 --users 20000 --items 5000 --seed 7
    """
    from simulation.simulate import simulate_shop

    log = get_logger("simulate")

    def progress(day: dt.date, done: int, impressions: int) -> None:
        """Tell the log how many days are written, and the impressions of all of them."""
        log.info("%s: day %d of %d, %s impressions so far", day, done, days, f"{impressions:,}")

    made = simulate_shop(load_shop(shop), parse_as_of_date(first_day), days, users, items, seed, progress=progress)
    log.info("the last day is %s: nightshelf run --shop %s --as-of-date %s", made["last_day"], shop, made["last_day"])


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="movielens, grocer or globo")],
    home: Annotated[Path, typer.Option("--home", help="the folder that becomes the shop's home")],
    source: Annotated[
        Path | None, typer.Option("--from", help="your own copy of the data, where it cannot be downloaded")
    ] = None,
    share: Annotated[float, typer.Option("--share", help="globo: the share of the readers, for a small machine")] = 1.0,
) -> None:
    """Turn a public data set into raw logs and their shop file.

    Example: nightshelf fetch movielens --home var/movielens
    """
    from pipelines.fetch import fetch as fetch_data

    fetch_data(name, home, source, share)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="the question, in DuckDB's SQL")],
    shop: ShopFile = DEMO,
    output: Annotated[str, typer.Option("--format", help="table, csv or json")] = "table",
    as_of: Annotated[
        str, typer.Option("--as-of", help="a snapshot id, or a date: the tables as that night left them")
    ] = "",
) -> None:
    """Ask the tables a question.

    Example: nightshelf sql "select scenario, count(*) from recommendations group by 1" --shop conf/shops/demo.yaml
    """
    from pipelines.sql import print_query

    print_query(load_shop(shop), query, output, as_of)


@app.command()
def report(as_of_date: AsOfDate, shop: ShopFile = DEMO) -> None:
    """Write the night's report: one HTML file, readable with no server.

    Example: nightshelf report --shop conf/shops/demo.yaml --as-of-date 2026-02-14
    """
    from nightshelf.paths import report_file
    from pipelines.night import run_night

    loaded, day = _night(shop, as_of_date)
    run_night(loaded, day, "report", "report")
    typer.echo(report_file(loaded, day))


@app.command()
def why(
    scenario: Annotated[str, typer.Option("--scenario", help="the scenario of the shelf")],
    user: Annotated[
        str, typer.Option("--user", help="a user id of the logs, or a user_key; '*': whoever is not known")
    ] = "",
    item: Annotated[str, typer.Option("--item", help="instead of a user: the item that somebody is at")] = "",
    shop: ShopFile = DEMO,
    as_of_date: Annotated[
        str, typer.Option("--as-of-date", help="the night; by default the newest that was published")
    ] = "",
    as_of: Annotated[
        str, typer.Option("--as-of", help="a snapshot id, or a date: look for the night in the tables of then")
    ] = "",
    against: Annotated[str, typer.Option("--against", help="another night, to see what differs and why")] = "",
    against_as_of: Annotated[str, typer.Option("--against-as-of", help="… and for that other night")] = "",
    output: Annotated[str, typer.Option("--format", help="table or json")] = "table",
) -> None:
    """Show a shelf: who proposed each item, what it is worth, what was left out, and how another night's differs.

    Example: nightshelf why --user u0000042 --scenario search --against 2026-02-13 --shop conf/shops/demo.yaml

    Example: nightshelf why --user u0000042 --scenario search --as-of 2026-02-14 (after a rollback to the night before)

    Example: nightshelf why --item S0000042 --scenario cart --shop conf/shops/demo.yaml
    """
    from pipelines.why import explain, print_why
    from pipelines.why_item import explain_item, print_why_item

    if bool(user) == bool(item):
        raise InputError("give --user or --item, one of them: whose shelf is it?")
    if item and (against or against_as_of):
        raise InputError("--against compares shelves of users; give --user, or leave it out")
    if item:
        print_why_item(explain_item(load_shop(shop), item, scenario, as_of_date, as_of), output)
        return
    print_why(explain(load_shop(shop), user, scenario, as_of_date, against, as_of, against_as_of), output)


@app.command()
def weights(
    as_of_date: AsOfDate,
    shop: ShopFile = DEMO,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", help="this one alone; may be repeated")] = None,
    output: Annotated[str, typer.Option("--format", help="table or json")] = "table",
) -> None:
    """Look for weights of the tasks that rank a scenario's shelves better than `utility`, on the days that measure.

    Half of the users choose, the other half tell what it gains. Nothing is changed: write `rank_by` into the shop file.
    Bounds hold 95 times of 100: of many scenarios one may seem better by chance.

    Example: nightshelf weights --as-of-date 2026-02-14 --scenario search --shop conf/shops/demo.yaml
    """
    from pipelines.weights import find_weights, print_weights

    print_weights(find_weights(*_night(shop, as_of_date), tuple(scenario or ())), output)


@app.command()
def rollback(
    to: Annotated[str, typer.Option("--to", help="a night, YYYY-MM-DD, or a snapshot id of shelf_status")],
    shop: ShopFile = DEMO,
    reason: Annotated[str, typer.Option("--reason", help="why; kept in shelf_status")] = "",
) -> None:
    """Bring back the shelves that an earlier night published; in seconds, at once for all who read, then in the exports.

    Example: nightshelf rollback --to 2026-02-13 --reason "prices were wrong" --shop conf/shops/demo.yaml
    """
    from pipelines.rollback import rollback as roll_back

    typer.echo(roll_back(load_shop(shop), to, reason))


@app.command()
def maintain(
    shop: ShopFile = DEMO,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="tell which files no state refers to, delete none")
    ] = False,
) -> None:
    """Merge small files, forget states older than `keep` in the shop file says, delete what nobody can read any more.

    Example: nightshelf maintain --dry-run --shop conf/shops/demo.yaml
    """
    from pipelines.maintenance import maintain as keep_small
    from pipelines.maintenance import told

    typer.echo(told(keep_small(load_shop(shop), dt.datetime.now(dt.UTC), dry_run), dry_run))


@app.command()
def doctor(shop: ShopFile = DEMO) -> None:
    """Tell what is missing or wrong, and the remedy, all at once.

    Example: nightshelf doctor --shop conf/shops/demo.yaml
    """
    from pipelines.doctor import main as examine

    examine(shop)


def _night(shop: Path, as_of_date: str) -> tuple[Shop, dt.date]:
    """Read the shop file and the date; the clock is read here, at the edge, and nowhere else."""
    loaded = load_shop(shop)
    day = parse_as_of_date(as_of_date)
    last = last_complete_day(dt.datetime.now(dt.UTC), loaded.timezone)
    if day > last:
        raise InputError(f"as_of_date {day} is not over yet in {loaded.timezone}; the last complete day is {last}")
    return loaded, day


def main() -> None:
    """Run the command line; an expected error is one line and its exit code. The process ends here."""
    configure_logging()
    gc.set_threshold(_COLLECT_EVERY)
    code = 0
    try:
        app()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # a text, which Python would show
        code = end.code or 0
    except NightshelfError as error:
        sys.stderr.write(f"nightshelf: {' '.join(str(error).split())}\n")
        code = error.exit_code
    # Python would look through all that the libraries leave behind, .8 s a stage; the system takes it back at once.
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):  # of whoever read enough
        sys.stdout.flush()
    os._exit(code)
