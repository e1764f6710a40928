# Only python3 (3.11 to 3.13, with venv) and make are assumed. Works offline once set up; `make help` lists what there is.
# Another Python: make setup PYTHON=python3.13, once; .venv remembers it.

PYTHON  ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
PY      := .venv/bin/python
WORKERS ?= logical
TESTS   ?=
export PYTHONUTF8 := 1
unexport PYTHONDONTWRITEBYTECODE # else every worker and every command of the tests compiles all there is anew

.PHONY: help install setup demo test test-citus check bench lock

help:
	@echo 'make demo             everything set up, then the whole story; ONCE=1 ends after it'
	@echo 'make test             everything set up, then every test; TESTS=tests/test_links.py runs some'
	@echo 'make test-citus       the tests of the database on CITUS_URL=postgresql://…, a server that has Citus'
	@echo 'make check            ruff, mypy, the floors, and the docs against the code'
	@echo 'make bench            every path beside its limit, ten minutes; QUICK=1 takes one, ONLY=webhooks measures some'
	@echo 'make install          only what runs, in .venv: the command mailprefs'
	@echo 'make setup            that, and what tests and checks need'
	@echo 'make lock             the lock files anew, after a change of pyproject.toml (needs uv)'

# $(call ready,LOCK): .venv holds what LOCK names. A file's date says nothing after a clone, so a digest decides, not make.
define ready
	@command -v '$(PYTHON)' >/dev/null || { printf '%s\n' 'mailprefs needs Python 3.11 to 3.13. This brings it:' '' \
	  '    apt-get install -y python3 python3-venv' '' >&2; exit 2; }
	@'$(PYTHON)' tools/prepare.py $(1)
endef

install:
	$(call ready,requirements.lock)

setup:
	$(call ready,requirements-dev.lock)

demo:
	$(call ready,requirements.lock)
	@exec $(PY) -m mailprefs demo $(if $(filter-out 0,$(ONCE)),--once)

# What is marked so on the text of a cluster; then every test on the PostgreSQL that comes along; then, on the system's own where there is
# one, what is about SQL itself (docs/rooms.md has the rules). All are run, whatever one says; 5 is pytest's word for "none of these TESTS".
PYTEST = $(PY) -m pytest -n $(WORKERS) --dist loadgroup -r fEs
SYSTEM := $(lastword $(wildcard /usr/lib/postgresql/15/bin /usr/lib/postgresql/16/bin /usr/lib/postgresql/17/bin /usr/lib/postgresql/18/bin))

test: setup
	@echo 'On the text of a cluster, what it has otherwise:'; \
	MAILPREFS_TEST_SPREAD=1 $(PYTEST) -m spread $(TESTS) || [ $$? = 5 ] || failed=1; \
	echo 'Everything:'; \
	$(PYTEST) $(TESTS) || failed=1; \
	if [ -n '$(SYSTEM)' ]; then \
	  echo 'Once more, on the PostgreSQL in $(SYSTEM):'; \
	  MAILPREFS_TEST_BINARIES='$(SYSTEM)' $(PYTEST) -m sql $(TESTS) || [ $$? = 5 ] || failed=1; \
	fi; \
	exit $${failed:-0}

# Each worker has databases of its own there, Citus a process for each, and every session one more to its own server: two need no setting.
test-citus: WORKERS = 2
test-citus: setup
	@test -n '$(CITUS_URL)' || { printf '%s\n' 'This needs a PostgreSQL server with Citus, and a role that may make databases:' '' \
	  '    make test-citus CITUS_URL=postgresql://postgres@localhost/postgres' '' >&2; exit 2; }
	@MAILPREFS_TEST_DATABASE_URL='$(CITUS_URL)' MAILPREFS_TEST_CITUS=1 $(PYTEST) -m postgres $(TESTS)

check: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/test_floors.py $(wildcard tests/test_docs.py)

# On the PostgreSQL that comes along; BENCH_BINARIES names the programs of another, BENCH_DATABASE_URL a server. BENCH_JSON=FILE writes JSON.
bench: setup
	@QUICK='$(QUICK)' ONLY='$(ONLY)' $(PY) -m benchmarks

COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
lock:
	@command -v uv >/dev/null || { echo 'This needs uv: python3 -m pip install uv' >&2; exit 2; }
	uv $(COMPILE) --extra embedded --group build --output-file requirements.lock
	uv $(COMPILE) --extra embedded --extra parquet --extra speedups --group dev --constraints requirements.lock --output-file requirements-dev.lock
