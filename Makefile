# The verbs of the project. `make` alone lists them. Everything is built with one Cargo profile (dev, tuned in Cargo.toml)
# and always for the whole workspace: selecting one package would give shared crates other features, and Cargo would
# compile the heavy ones again.

PROFILE ?= default
RECIPE  ?= pipeline/recipes/avatar.yaml
GOLDEN  ?= tests/golden
CARGO   ?= cargo
# how long cargo-fuzz tries each of its targets
FUZZ_SECONDS ?= 600

bin := $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := help
.PHONY: help setup build pipeline ablations test check torture fuzz parity paper-check prior head bench bless clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  PROFILE=smoke|default|paper for pipeline, quick|default for ablations, GOLDEN=DIR for parity'

setup: ## install what is missing: Debian packages, CPU libtorch, data packages
	@stages/setup.sh

build: setup ## build everything (about ten minutes the first time)
	@$(CARGO) build --workspace

pipeline: build ## make an avatar, its renders, scores and report from the default data
	@$(bin)/effigy run $(RECIPE) --profile $(PROFILE)

ablations: build ## what each part of the avatar is worth: eight variants over seeds (PROFILE=quick for a look at the machinery)
	@$(bin)/effigy run pipeline/recipes/ablations.yaml --profile $(PROFILE)

test: build ## run all tests
	$(CARGO) test --workspace --no-fail-fast

check: build ## what a change has to pass: format, lints, tests, documentation
	$(CARGO) fmt --all --check
	rustfmt --check --edition 2024 stages/src/*.rs stages/src/common/*.rs  # modules that a macro finds: cargo fmt does not see them
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --no-fail-fast
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

torture: build ## kill it hundreds of times, spoil its index, fail its disk; compare with an undisturbed run (needs strace)
	$(CARGO) test --workspace --test torture -- --ignored --nocapture

fuzz: build ## millions of damaged recipes and tables, none of which may make it panic
	$(CARGO) test --workspace --test fuzz -- --ignored --nocapture
	@if $(CARGO) +nightly fuzz --version > /dev/null 2>&1; then for target in tables recipes; do \
	  mkdir -p target/fuzz/found/$$target && $(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz $$target \
	    target/fuzz/found/$$target target/tmp/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=20 || exit 1; done; \
	else echo 'not tried: cargo-fuzz, which goes by what an input reaches (rustup toolchain install nightly; cargo install cargo-fuzz)'; fi

parity: build ## compare the networks and the geometry with reference cases (GOLDEN=DIR)
	@$(bin)/parity $(GOLDEN)

paper-check: build ## the paper's network in its own size: a folder like Stable Diffusion 2.1's, doctor's word on it, a step at 512 px (12 GB)
	$(CARGO) test --workspace --test full_size -- --ignored --nocapture
	@$(bin)/effigy doctor --recipe pipeline/recipes/avatar.yaml --profile paper --workspace target/tmp/paper-check \
	  --param prior=$(abspath $(dir $(bin))tmp/stable-diffusion-2-1)
	@rm -r $(dir $(bin))tmp/stable-diffusion-2-1 target/tmp/paper-check

prior: build ## make the shipped image prior again: from scratch, and trained on twice
	@$(bin)/effigy run pipeline/recipes/prior.yaml --out out/prior
	@datasets/weights/export.sh $(bin)/effigy out/prior/first
	@$(bin)/effigy run pipeline/recipes/prior_longer.yaml --param shipped=$(abspath out/prior/first) --out out/prior/longer
	@datasets/weights/export.sh $(bin)/effigy out/prior/second pipeline/recipes/prior_longer.yaml
	@$(bin)/effigy run pipeline/recipes/prior_longer.yaml --param shipped=$(abspath out/prior/second) --param prior_steps=5000 \
	  --param seed=1 --out out/prior/longer
	@datasets/weights/export.sh $(bin)/effigy datasets/weights/prior-64 pipeline/recipes/prior_longer.yaml

head: build ## make the shipped head model again, from scratch
	@$(bin)/effigy run pipeline/recipes/head_weights.yaml --out out/head
	@$(bin)/effigy export pipeline/recipes/head_weights.yaml weights --to datasets/weights/head-mini --overwrite

bench: build ## compare with make, ninja, Snakemake, redun, DVC, DataChain, b3sum, OpenCV, scikit-image, llvmpipe, Open3D, torchmetrics, lpips and diffusers (benches/peers/install.sh target/peers gets them)
	@$(CARGO) build --workspace --examples
	@mkdir -p target/peers/bin && ln -sf $(abspath $(bin))/effigy target/peers/bin/effigy
	@BENCH_BIN_DIR=$(abspath target/peers/bin) python3 benches/peers/bench.py

bless: build ## accept that changed code gives the same results (see CONTRIBUTING.md)
	$(CARGO) test --workspace --test tidy -- --ignored bless

clean: ## remove what was built; results (.effigy, out) and downloads stay
	$(CARGO) clean
