.PHONY: fmt docs lint types test torture demo bench wheel

fmt:
	ruff format . && ruff check --fix .

docs:
	python docs/help_pages.py
	python docs/encoder_cards.py
	python docs/claims_page.py

lint:
	ruff check . && ruff format --check .

types:
	mypy

test:
	pytest -n 2

# Minutes to an hour; shorter or longer by TORTURE_KILLS, EVERY, FLIPS, CUTS and SEED.
TORTURE_KILLS ?= 200
TORTURE_EVERY ?= 1
TORTURE_FLIPS ?= 1000
TORTURE_CUTS ?= 500
torture: export TORTURE_KILLS := $(TORTURE_KILLS)
torture: export TORTURE_EVERY := $(TORTURE_EVERY)
torture: export TORTURE_FLIPS := $(TORTURE_FLIPS)
torture: export TORTURE_CUTS := $(TORTURE_CUTS)
torture:
	pytest tests/torture -s --durations=0

demo:
	pa demo

bench:
	for script in benchmarks/*.py; do python $$script; done

wheel:
	python -m build --wheel
