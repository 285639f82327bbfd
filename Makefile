SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
NEWEST := .venv-newest
EXTRAS := robotics,llm,book,dev
export OMP_NUM_THREADS := 1

.PHONY: help book test browser zip pdf site fill wheel colab oldest lean newest lab execute replicate weekly smollm bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

book: $(INSTALLED)  ## build the rendered book in book/_build/html (offline; warnings are errors)
	$(VENV)/bin/jupyter-book build book --all -W -n --keep-going
	@echo "open book/_build/html/index.html"

test: book  ## run every test, and every chapter in smoke mode
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) tools/check_notebooks.py
	$(PYTHON) -m pytest -n 2 --dist worksteal --nbmake --nbmake-timeout=120 --ignore=tests/browser tests book/chapters
	$(PYTHON) -m pytest -n 2 --dist worksteal tests/browser

browser: $(INSTALLED)  ## install what the checks of the built pages need: Chromium, an HTML checker
	$(PYTHON) tools/chromium.py --install

zip: book  ## pack all notebooks into book/_build/html/downloads
	$(PYTHON) tools/publish.py zip

pdf: book  ## print every chapter into book/_build/html/downloads (needs Chromium; one: CHAPTER=...)
	$(PYTHON) tools/pdf.py $(CHAPTER)

site: export DUALITY_DOWNLOADS := 1
site: zip pdf  ## the book with these downloads linked, as it is published

fill: $(INSTALLED)  ## write DUALITY_REPOSITORY into the setup cells (only on what is to be published)
	$(PYTHON) tools/publish.py fill

wheel: $(INSTALLED)  ## build the package's wheel in dist
	rm -rf build dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

colab: $(INSTALLED)  ## run every chapter as Colab would (needs Python 3.12 and 8 GB; one: CHAPTER=...)
	$(PYTHON) tools/elsewhere.py colab $(CHAPTER)

oldest: $(INSTALLED)  ## run chapters and tests with the oldest versions that pyproject.toml allows
	$(PYTHON) tools/elsewhere.py oldest $(CHAPTER)

lean: $(INSTALLED)  ## run chapters and tests without the optional extras
	$(PYTHON) tools/elsewhere.py lean $(CHAPTER)

newest:  ## run the tests, and chapters in lecture mode with seed 1, with the newest of everything
	python3 -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade -e '.[$(EXTRAS)]'
	$(NEWEST)/bin/python -m pytest -n 2 --dist worksteal --ignore=tests/browser tests
	DUALITY_SEED=$${DUALITY_SEED:-1} $(NEWEST)/bin/python tools/execute.py --force $(CHAPTER)

lab: $(INSTALLED)  ## open the chapters in JupyterLab, on their list
	$(PYTHON) tools/lab_index.py
	$(VENV)/bin/jupyter lab book/chapters --LabApp.default_url=/lab/tree/index.md

execute: $(INSTALLED)  ## run stale chapters and store their outputs (one: CHAPTER=foundations/the_lab)
	$(PYTHON) tools/execute.py $(CHAPTER)

replicate: $(INSTALLED)  ## run a chapter with seeds that nobody has used (CHAPTER=... SEEDS=100:10)
	$(PYTHON) tools/replicate.py --seeds="$(SEEDS)" $(if $(filter 1,$(AGAIN)),--again) $(CHAPTER)

weekly: $(INSTALLED)  ## replicate every chapter once, with a seed of this week's
	$(PYTHON) tools/replicate.py --seeds=week --all

smollm: $(INSTALLED)  ## put SmolLM2-135M, a real small language model, into the book's cache (93 MB)
	$(PYTHON) tools/smollm.py

bench: book  ## measure the speeds that the book quotes, into benchmarks/RESULTS.md
	$(PYTHON) benchmarks/run.py

clean:  ## remove the built book, caches and scratch outputs
	rm -rf book/_build build dist .execute .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed; python3 here is " + sys.version.split()[0])'
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
