# Each target is at most three lines; what is longer lies in scripts/. `make` alone lists them.
SHELL := /bin/sh
JOBS := .venv/jobs/bin
AIRFLOW := .venv/airflow/bin
.DEFAULT_GOAL := help
.PHONY: help env lock night up down doctor test test-long test-cluster test-engines test-stack test-peers test-readers test-torchrec coverage lint format bench-night bench-truth bench-dirt bench-features bench-gpu bench-readers bench-recipes bench-movielens bench-training bench-shelves bench-peers bench-grocer chaos docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

night: env ## one whole night: demo shop, the real Airflow DAG in one process, a look at the tables
	@scripts/night

test: lint ## lint, then the tests, in both environments; those of minutes have targets of their own
	OMP_NUM_THREADS=1 $(JOBS)/python -m pytest -n 2 --dist loadfile
	NIGHTSHELF_TEST_ENGINE=sail $(JOBS)/python -m pytest -n 2 --dist worksteal -m histories
	$(AIRFLOW)/python -m pytest tests/dags

test-long: env ## a whole night and those that follow, trainings in several processes, kills again and again; minutes
	OMP_NUM_THREADS=1 $(JOBS)/python -m pytest -n 2 --dist loadfile -m long

test-cluster: env ## the feature jobs on a Spark cluster of two workers, one of them killed; minutes
	$(JOBS)/python -m pytest tests/cluster -m cluster

test-engines: env ## the feature jobs' tests on Sail, histories on Spark, nights on three engines and of late events; minutes
	NIGHTSHELF_TEST_ENGINE=sail $(JOBS)/python -m pytest -m "not histories and not engines" tests/feature_jobs tests/pipelines/test_clean.py tests/pipelines/test_features.py tests/pipelines/test_file_order.py
	$(JOBS)/python -m pytest -m "engines or histories"

test-stack: env ## exports to real servers of PostgreSQL and Redis, which it starts on loopback; a minute; last line JSON
	@$(JOBS)/python -m benchmarks.stack tests/stack -m stack

test-peers: .venv/deepctr/ready .venv/rechub/ready ## our backbones beside those of other libraries, with the same weights
	.venv/deepctr/bin/python -m pytest tests/peers -m peers -k deepctr
	.venv/rechub/bin/python -m pytest tests/peers -m peers -k rechub

test-readers: .venv/iceberg/ready ## the tables read by Spark with Iceberg's own runtime and by DuckDB's extension; minutes
	.venv/iceberg/bin/python -m pytest tests/readers -m readers

test-torchrec: .venv/torchrec/ready ## the embedding table sharded by TorchRec over two and three processes, beside the whole one; minutes
	.venv/torchrec/bin/python -m pytest tests/training/sharded -m sharded

coverage: env ## the share of the code without an engine that its own tests run; at least 90 %
	$(JOBS)/python -m pytest tests/nightshelf tests/training tests/simulation -q --cov=nightshelf --cov=training --cov=simulation --cov-fail-under=90

lint: env ## ruff, mypy, import-linter
	$(JOBS)/ruff check . && $(JOBS)/ruff format --check .
	$(JOBS)/mypy && $(JOBS)/lint-imports

format: env ## let ruff mend what it can
	$(JOBS)/ruff check --fix . && $(JOBS)/ruff format .

up: env ## start Airflow (scheduler, UI) and MLflow on loopback, and print where to look and how to log in
	@$(JOBS)/python -m pipelines.services up

down: ## end what `make up` started
	@if [ -x $(JOBS)/python ]; then $(JOBS)/python -m pipelines.services down; fi

doctor: ## what is missing or wrong on this machine, and the remedy
	@[ -x $(JOBS)/nightshelf ] || $(MAKE) --no-print-directory env
	@$(JOBS)/nightshelf doctor

env: .venv/jobs/ready .venv/airflow/ready ## both environments, from requirements/*.lock

.venv/%/ready: requirements/%.txt .venv/jobs/ready
	@scripts/make-on-top $*

.venv/%/ready: requirements/%.lock pyproject.toml
	@scripts/make-environment $*

lock: env ## renew requirements/*.lock from pyproject.toml
	@scripts/lock

bench-night: env ## time one demo night through the DAG; last line JSON
	@$(JOBS)/python -m benchmarks.night

bench-truth: env ## the published shelves against the simulated truth; last line JSON
	@$(JOBS)/python -m benchmarks.truth

bench-dirt: env ## precision and recall of the cleaning's rules on planted dirt; last line JSON
	@$(JOBS)/python -m benchmarks.dirt

bench-features: env ## raw logs to training examples at 1, 10 and 50 million events, beside Sail and DuckDB, an hour and a half; last line JSON
	@$(JOBS)/python -m benchmarks.features

bench-gpu: env ## MMoE and PLE on this machine's accelerator, beside what it could do at best; last line JSON
	@$(JOBS)/python -m benchmarks.gpu

bench-readers: env ## who reads while nights publish, are refused and are killed sees whole versions; last line JSON
	@$(JOBS)/python -m benchmarks.readers

bench-recipes: env ## every backbone and balance on the demo night beside models that share nothing; last line JSON
	@$(JOBS)/python -m benchmarks.recipes

bench-movielens: env ## every backbone by a published protocol on MovieLens-1M, and split by time; last line JSON
	@$(JOBS)/python -m benchmarks.movielens

bench-training: .venv/rechub/ready .venv/deepctr/ready .venv/fuxictr/ready ## training beside torch-rechub, deepctr-torch and fuxictr on one table; last line JSON
	@$(JOBS)/python -m benchmarks.training_speed

bench-shelves: .venv/implicit/ready ## the search for the nearest items beside faiss, implicit and plain torch, and whole shelves; last line JSON
	@$(JOBS)/python -m benchmarks.shelves

bench-grocer: .venv/implicit/ready ## a night's shelves on a grocer's receipts beside implicit and what is simple; last line JSON
	@$(JOBS)/python -m benchmarks.grocer

bench-peers: .venv/implicit/ready ## twenty items of the whole catalogue on public logs, beside implicit and what is simple; last line JSON
	@$(JOBS)/python -m benchmarks.top_n

chaos: env ## kill -9 each stage at random moments and compare; last line JSON
	@$(JOBS)/python -m benchmarks.chaos

docs: env ## renew docs/tables.md
	@$(JOBS)/python -m pipelines.table_docs > docs/tables.md
