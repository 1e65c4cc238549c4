"""The ledgers: what the nights write of themselves."""

from nightshelf.table_spec import AS_OF_DATE, SCENARIO, Column, TableSpec


def ledgers() -> list[TableSpec]:
    """Return the specs of what the nights write of themselves: runs, what was published, checks, metrics, promotions."""
    return [
        TableSpec(
            "stage_runs",
            "finished attempt of a stage",
            ("run_id",),
            (
                AS_OF_DATE,
                Column("run_id", "string", "the attempt"),
                Column("stage", "string", "the stage; or shelves: who made a part of recommend's"),
                Column("status", "string", "done or failed"),
                Column("started_at", "timestamp", "UTC"),
                Column("seconds", "float64", "wall time"),
                Column(
                    "peak_memory_mb",
                    "float64",
                    "largest memory of the process and its children; what they share counts once",
                ),
                Column("rows_in", "int64", "rows read"),
                Column("rows_out", "int64", "rows written"),
                Column("rows_quarantined", "int64", "rows set aside"),
                Column("code_version", "string", "hash of nightshelf's source files"),
                Column("inputs", "string", "JSON: table → snapshot id that was read"),
                Column("message", "string", "the error, or empty"),
            ),
        ),
        TableSpec(
            "shelf_status",
            "attempt to change the published shelves",
            ("run_id",),
            (
                AS_OF_DATE,
                Column("run_id", "string", "the attempt"),
                Column("told_at", "timestamp", "UTC"),
                Column(
                    "status",
                    "string",
                    "published; refused: the shelves before stay; or rolled_back: older ones are back",
                ),
                Column("serves", "date", "the night whose shelves are the newest in recommendations since then", True),
                Column("snapshot_id", "int64", "the state of recommendations since then", True),
                Column("reason", "string", "why it was refused or rolled back; else empty"),
            ),
        ),
        TableSpec(
            "data_checks",
            "expectation on a table",
            ("table_name", "expectation", "column_name"),
            (
                AS_OF_DATE,
                Column("table_name", "string", "the table that was checked"),
                Column("expectation", "string", "the rule"),
                Column("column_name", "string", "the column, or empty"),
                Column("severity", "string", "fail or warn"),
                Column("success", "bool", "whether it held"),
                Column("observed", "string", "what was seen"),
                Column("expected", "string", "what was asked for"),
            ),
        ),
        TableSpec(
            "feature_drift",
            "feature, or label in a scenario: its newest days against those that the serving model learned",
            ("kind", "name", "scenario"),
            (
                AS_OF_DATE,
                Column("kind", "string", "feature or label"),
                Column("name", "string", "the feature, or the label's task"),
                Column("scenario", "string", "the surface of a label; `*` for a feature"),
                Column("reference_date", "date", "the night whose training split is the reference"),
                Column("reference_rows", "int64", "sampled rows of the reference"),
                Column("rows", "int64", "sampled rows of the newest days"),
                Column("psi", "float64", "population stability index, over tenths of the reference or frequent ids"),
                Column("psi_noise", "float64", "PSI below which 999 of 1,000 samples of these sizes stay by chance"),
                Column("ks", "float64", "Kolmogorov-Smirnov distance, 0..1; null for ids", True),
                Column("js", "float64", "Jensen-Shannon distance over the same bins, 0..1"),
                Column("died", "bool", "the feature has one value now and had several, by more than chance"),
            ),
        ),
        TableSpec(
            "candidate_recall",
            "outcome event × candidate generator: what of a day's outcomes the last night before it had proposed",
            ("event_type", "generator"),
            (
                AS_OF_DATE,
                Column("candidates_of", "date", "the night that proposed"),
                Column("event_type", "string", "the outcome: click, cart, purchase …"),
                Column(
                    "generator",
                    "string",
                    "the candidate generator, or `*`: the first 500 of all, every one's best before every second, and so on",
                ),
                Column(
                    "outcomes", "int64", "different pairs of user and item with that outcome in a scenario on the day"
                ),
                Column("found", "int64", "those that were candidates"),
                Column("recall", "float64", "found / outcomes"),
                Column(
                    "candidates_per_user",
                    "float64",
                    "proposals to a user with such an outcome, in its scenario, on average; an item counts once a generator",
                    True,
                ),
            ),
        ),
        TableSpec(
            "candidate_quotas",
            "scenario × candidate generator: how many of its proposals are ranked, and what that keeps of the last outcomes",
            ("scenario", "generator"),
            (
                AS_OF_DATE,
                SCENARIO,
                Column("generator", "string", "the candidate generator, or `*` for all together"),
                Column(
                    "quota",
                    "int32",
                    "the best so many of its proposals to a user that are ranked; `*`: their sum; null: all",
                    True,
                ),
                Column(
                    "quota_from",
                    "string",
                    "learned; shop file; or all: nothing is cut, as on a night that can judge nothing",
                ),
                Column(
                    "proposed", "int32", "the most that it proposed to one user on the judged days; of `*` their sum"
                ),
                Column(
                    "ranked_per_user",
                    "float64",
                    "proposals within the quota, a user with candidates of their own, on average",
                ),
                Column("proposed_per_user", "float64", "all proposals, likewise"),
                Column(
                    "outcomes",
                    "int64",
                    "different triples of day, user and item with an outcome in the scenario that were judged",
                ),
                Column("worth", "float64", "what those outcomes are worth, in the scenario's utility"),
                Column("worth_found", "float64", "… of those that it had proposed the night before"),
                Column("worth_kept", "float64", "… of those that it had proposed within the quota"),
                Column(
                    "own_weight",
                    "float64",
                    "how far the scenario's own outcomes decide, 0..1; all scenarios' do the rest",
                ),
            ),
        ),
        TableSpec(
            "model_metrics",
            "model_version × scenario × task × metric on the test days",
            ("model_version", "scenario", "task", "metric"),
            (
                AS_OF_DATE,
                Column("model_version", "string", "the registered version"),
                Column("role", "string", "challenger or champion"),
                Column("scenario", "string", "the surface, or `*` for all together"),
                Column("task", "string", "the learning target, or `*`"),
                Column("metric", "string", "auc, gauc, logloss, ndcg, rmse, pcoc (predicted over observed) …"),
                Column("value", "float64", "the metric; null where it is not defined", True),
                Column("lower", "float64", "lower 95 % bound (bootstrap over users)", True),
                Column("upper", "float64", "upper 95 % bound (bootstrap over users)", True),
                Column("rows", "int64", "test rows behind it"),
                Column("positives", "int64", "positive rows behind it"),
            ),
        ),
        TableSpec(
            "promotions",
            "decision of the promotion gate",
            ("challenger",),
            (
                AS_OF_DATE,
                Column("challenger", "string", "model version that asked"),
                Column("champion", "string", "model version that held the alias, or empty"),
                Column("promoted", "bool", "whether the alias moved"),
                Column("reason", "string", "the decision in a sentence"),
                Column("evidence", "string", "JSON: every check with observed and expected"),
            ),
        ),
    ]
