# The verbs of the day. `make demo` and `make test` need nothing but a fresh machine.
.PHONY: test lint fmt

test: ## everything
	./scripts/test

lint: ## formatting and clippy
	./scripts/test lint

fmt: ## format the sources
	cargo fmt --all
