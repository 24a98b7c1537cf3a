.PHONY: fmt lint types test demo bench wheel

fmt:
	ruff format . && ruff check --fix .

lint:
	ruff check . && ruff format --check .

types:
	mypy

test:
	pytest

demo:
	pa demo

bench:
	for script in benchmarks/*.py; do python $$script; done

wheel:
	python -m build --wheel
