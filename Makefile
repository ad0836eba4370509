# skiff: `make run` shows it, `make test` proves it. `make help` lists the rest.
VERSION ?= 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X skiff/internal/version.Version=$(VERSION) -X skiff/internal/version.Commit=$(COMMIT)
LDFLAGS_skiff := -E main.start
PROGRAMS := skiff skiffd skiff-keeper skiff-runtime skiff-registry skiff-init skiff-tls
PREFIX ?= /usr/local

.PHONY: all run test test-unit test-e2e lint bench install clean help FORCE

all: $(addprefix bin/,$(PROGRAMS)) ## build every program into bin/

bin/%: FORCE
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS) $(LDFLAGS_$*)' -o $@ ./cmd/$*

run: all ## run a container from an image on your terminal
	@./test/demo

test: ## install what tests need, then vet, race detector, unit and end-to-end tests
	@./test/prepare
	@$(MAKE) --no-print-directory all lint test-unit test-e2e

test-unit: ## the tests next to the code, under the race detector
	@./test/unit

test-e2e: all ## the built binaries, as root, driven by skiff and by docker
	@./test/end-to-end

lint: ## go vet, staticcheck, gofumpt
	@./test/lint

bench: all ## measure against Docker, side by side; the table also goes to bench.json
	@./test/prepare docker
	@go run ./test/bench $(BENCHFLAGS)

install: all ## copy the programs and the systemd units into PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/systemd/system
	install -m 755 $(addprefix bin/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 dist/systemd/* $(DESTDIR)/etc/systemd/system/

clean: ## remove what was built and cached
	rm -rf bin .cache

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort
