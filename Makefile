# Two commands: `make demo` and `make test`. Each installs what is missing on Debian 12 (as root or through sudo), builds
# Release into build/ and goes on. Everything else is CMake's: see CMakePresets.json.
#
#   make demo PROMPT="a red fox runs in snow" SEED=7
#   make test CMAKE_FLAGS=-DGV_WERROR=ON

PROMPT      ?= a red fox runs to the right in a snowy forest
SEED        ?= 42
CMAKE_FLAGS ?=
JOBS        ?= $(shell nproc)
RANDOM_MODEL = build/demo-model

.PHONY: all packages build demo test test-training install clean
all: build

packages:
	@sh .ci/packages.sh

build: packages
	@mkdir -p build
	@cmake --preset release $(CMAKE_FLAGS) > build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@grep '^-- genvid:' build/configure.log
	@cmake --build build --parallel $(JOBS)

# A clip with the model that ships. Should its weights be missing from assets/models, with random ones in its configuration.
demo: build
	@model=assets/models; \
	if [ -z "$$(find assets/models/transformer -name '*.safetensors')" ]; then \
	  echo "assets/models holds no weights yet. The clip is made with seeded random weights in the shipped configuration:"; \
	  echo "it shows that everything works, and will look like noise."; \
	  model=$(RANDOM_MODEL); \
	  [ -s $$model/model_index.json ] || build/tests/make_model assets/models $$model || exit 1; \
	fi; \
	build/genvid video "$(PROMPT)" --model $$model --seed $(SEED) -o demo.mp4 -y

# ctest counts programs; the checks inside them are counted from their own closing lines.
test: build
	@sh tests/layers.sh
	@status=0; ctest --test-dir build --output-on-failure --no-tests=error --parallel $(JOBS) --output-log build/ctest.log || status=1; \
	awk '/^\[  PASSED  \]/ { n += $$4 } END { print n + 0 " checks passed inside the programs" }' build/Testing/Temporary/LastTest.log; \
	awk '/% tests passed/ { print $$NF - $$4 " passed, " $$4 " failed" }' build/ctest.log; exit $$status

# Every trainer on the CPU with the mini pack, a few steps each. Needs Python with PyTorch; not part of `make test`.
test-training:
	@sh assets/training/test.sh

install: build
	@cmake --install build

clean:
	@rm -rf build build-asan build-debug build-fuzz build-tsan build-minimal demo.mp4
