# `make help` lists the targets. CI runs `make test` and nothing weaker.

GO ?= go
TOOLS := $(CURDIR)/.tools

.PHONY: help build check lint unit e2e test soak bench gen tools clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

build: ## bin/livefire and bin/livefire-proxy
	$(GO) build -trimpath -o bin/livefire ./cmd/livefire
	$(GO) build -trimpath -o bin/livefire-proxy ./cmd/livefire-proxy

check: lint unit ## format, vet, staticcheck, import rules, race tests

lint: ## format, vet, staticcheck, other platforms, generated files
	./scripts/stage lint ./scripts/lint

unit: ## all tests without a build tag, with the race detector
	./scripts/stage unit $(GO) test -race -timeout 15m ./...

e2e: ## real processes, real Envoy, the tutorial
	./scripts/stage e2e $(GO) test -tags e2e -count 1 -timeout 30m -p 1 -v ./e2e/... ./internal/mesh/xdsserver

test: ## install what the tests need, then everything
	./scripts/stage install ./scripts/install-test-tools
	$(MAKE) lint unit e2e

soak: ## the long lists
	./scripts/install-test-tools
	LIVEFIRE_E2E_SOAK=1 $(GO) test -tags e2e -count 1 -timeout 4h -p 1 -v ./e2e/...

bench: ## failover compared, as ratios within one run
	$(GO) run ./bench

gen: ## generated code: protobuf, schemas, reference pages
	./scripts/gen

clean: ## what make has made
	rm -rf bin .tools
