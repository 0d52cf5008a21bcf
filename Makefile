# Each target sets itself up in .venv on a bare machine; a second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files in turn, each in one process, so that what its tests share is made once. The browser's files, which wait most,
# come first.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: app test quick lint format bench fuzz image encoders lock clean chromium

app: $(VENV)/.app-installed
	$(BIN)/streamlit run app.py

test: lint chromium
	$(BIN)/pytest $(PARALLEL)

quick: lint
	$(BIN)/pytest $(PARALLEL) -m "not slow and not browser"

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test-installed
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/lda.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/data_path.py --quick
	$(BIN)/python benchmarks/extract_images.py --quick
	$(BIN)/python benchmarks/extract_clips.py --quick
	$(BIN)/python benchmarks/keep_ratio.py --quick
	$(BIN)/python benchmarks/patch_scores.py
	$(BIN)/python benchmarks/until_stable.py --quick
	$(BIN)/python benchmarks/label_space.py --quick
	$(BIN)/python benchmarks/label_space.py --commands 4000 1000 128
	$(BIN)/python benchmarks/gpu.py --quick
	$(BIN)/python benchmarks/heads.py --quick
	$(BIN)/python benchmarks/fine_tune.py --quick
	$(BIN)/python benchmarks/pretrain.py --quick
	$(BIN)/python benchmarks/verdict.py --quick
	$(BIN)/python benchmarks/does_order_matter.py --quick

# 1,000 damaged files of each format that is read, 20 minutes on one core; prints the table of docs/reliability.md.
fuzz: $(VENV)/.test-installed
	$(BIN)/python -m tests.hostile.fuzz

# Builds the image without Docker, starts and tries it; prints the figures of docs/deploy.md. As root on Debian, 10 minutes.
image: chromium
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap uidmap
	$(BIN)/python -m tests.image

# Exports the encoder that comes with labelrank; for a new version of labelrank, Keras or OpenVINO, or a changed model.
encoders: $(VENV)/.app-installed
	$(BIN)/python -m tests.models.shipped_encoders

# Browser tests use /usr/bin/chromium, or $$CHROMIUM, or the one that Playwright brings.
chromium: $(VENV)/.test-installed
	@if [ -x "$${CHROMIUM:-/usr/bin/chromium}" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation; \
	else $(BIN)/playwright install chromium; fi

$(VENV)/.app-installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "labelrank needs Python 3.11 or newer; set PYTHON=...")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.test-installed: requirements-test.lock $(VENV)/.app-installed
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
	touch $@

# Writes the lock files anew; needs uv. The last two are the image's, for the CPU and for GPUs.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url
lock:
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra test --constraint requirements.lock --output-file requirements-test.lock
	$(COMPILE) --group image --no-emit-package tensorflow --constraint requirements.lock --output-file requirements-image.lock
	$(COMPILE) --group image --extra gpu --no-emit-package tensorflow-cpu --constraint requirements.lock --output-file requirements-gpu.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/artifacts
