# make demo   the whole job, small but real: data, training, evaluation, export, answers
# make serve  serve the model of the package, or what `make demo` made, by OpenAI's protocol;
#             make serve CHECKPOINT=DIR serves another
# make test   the whole test suite
# make env    only the Python environment, .venv
# make wheel-check  the wheel in a fresh environment outside the checkout (downloads about 1 GB)
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Empty where the package has a model, which is then the default.
CHECKPOINT ?= $(if $(wildcard ltu_jax/pretrained/config.json),,runs/demo/stage3)

.PHONY: env demo serve test lint clean wheel-check

env: .venv/.ready
demo: env
	$(BIN)/python -m ltu_jax.demo
serve: env
	$(BIN)/python -m ltu_jax.serve $(addprefix --checkpoint ,$(CHECKPOINT))
test: env .venv/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile
wheel-check:
	$(PYTHON) tests/try_wheel.py --python $(PYTHON)
lint: env .venv/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
clean:
	rm -rf .venv

.venv/.ready: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || $(PYTHON) -m virtualenv .venv || \
	  { rm -rf .venv; echo "error: no venv module; run: $(PYTHON) -m pip install --user virtualenv" >&2; exit 1; }
	$(PIP) install --quiet --progress-bar on --constraint constraints.txt --editable '.[demo,serve]'
	@touch $@

.venv/.ready-test: .venv/.ready
	$(PIP) install --quiet --progress-bar on torch==2.13.0
	$(PIP) install --quiet --progress-bar on --constraint constraints.txt --editable '.[demo,serve,test]'
	@# The planner's compiler; as a package every program would look for TPUs.
	$(PIP) install --quiet --progress-bar on --constraint constraints.txt --no-deps --upgrade \
	  --target .venv/libtpu "libtpu; platform_machine == 'x86_64' and sys_platform == 'linux'"
	@touch $@
