# make demo   the whole story: build three releases, serve, boot, update, roll back
# make test   every test; needs root for mmdebstrap, as the demo does
# make help   the rest

GO       ?= go
BIN      := bin
OUT      := out
PROGRAMS := semper semper-server semperd semper-etcdlock semper-installd semperctl semper-init
GOFLAGS_BUILD := -trimpath -buildvcs=false -ldflags=-s\ -w
export CGO_ENABLED := 0

# Host packages: what a build and a boot need, and the tools that tests compare with.
BUILD_PACKAGES := mmdebstrap gpgv debian-archive-keyring ca-certificates
BOOT_PACKAGES  := qemu-system-x86 qemu-utils ovmf
CHECK_PACKAGES := cryptsetup-bin gdisk dosfstools mtools sbsigntool binutils protobuf-compiler zstd erofs-utils openssl cpio systemd-boot-efi etcd-server etcd-client postgresql dbus dbus-daemon systemd iproute2 chromium

BENCH_PACKAGES := fio

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: packages
packages: ## install the host packages that builds, boots and tests need (as root)
	@scripts/host-packages $(BUILD_PACKAGES) $(BOOT_PACKAGES) $(CHECK_PACKAGES)
	@command -v npm >/dev/null || scripts/host-packages nodejs npm

.PHONY: programs
programs: ## build every program into bin/
	@mkdir -p $(BIN)
	$(GO) build $(GOFLAGS_BUILD) -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

.PHONY: demo
demo: packages programs ## build Semper OS 1.0.0 to 1.2.0, boot it, watch it update and go back
	@scripts/image $(BIN) images/semper $(OUT)/demo/images/semper
	$(GO) run ./qemu-tests/demo --bin $(BIN) --images $(OUT)/demo/images --out $(OUT)/demo

.PHONY: test
test: packages programs ## every test, QEMU ones included (under 40 minutes on two cores)
	scripts/test

.PHONY: deb
deb: ## the update server as a Debian package, in out/
	scripts/deb $(OUT) $(VERSION)

.PHONY: soak
soak: packages programs ## power cuts with many seeds, then the QEMU tests SOAK times (5)
	scripts/soak $(or $(SOAK),5)

.PHONY: unit
unit: ## the tests that boot nothing
	$(GO) test $$($(GO) list ./... | grep -v /qemu-tests)
	SEMPER_TEST_DATABASE=postgres $(GO) test -count=1 ./omaha/server

.PHONY: lint
lint: ## golangci-lint and gofumpt, both pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	scripts/fuzz $(or $(FUZZTIME),10s)

.PHONY: bench
bench: packages programs ## the figures of the docs, each as a ratio in one run
	@scripts/host-packages $(BENCH_PACKAGES)
	scripts/bench

.PHONY: bench-server
bench-server: programs ## the update server's figures, as ratios to a bare handler
	$(GO) run ./scripts/benchserver --bin $(BIN) --out $(OUT)/bench-server

.PHONY: bench-console
bench-console: packages ## each page of the console with a million machines and a thousand releases
	$(GO) test ./console-tests -run '^$$' -bench Pages -benchtime 1x -timeout 30m

.PHONY: sim
sim: ## a million simulated machines and the real server, on virtual time
	$(GO) run ./scripts/sim --out $(OUT)/sim

.PHONY: console
console: ## build the web console's pages anew, from omaha/server/console/web
	cd omaha/server/console/web && npm ci --ignore-scripts && npm run check && npm run build

.PHONY: console-pictures
console-pictures: ## take the pictures of docs/console anew, with the fonts that they have
	@scripts/host-packages chromium fonts-noto-core
	rm -f docs/console/*.webp
	SEMPER_CONSOLE_PICTURES=$(CURDIR)/docs/console $(GO) test -count=1 -run '^TestPages$$' ./console-tests

.PHONY: generate
generate: ## regenerate the protobuf code
	$(GO) generate ./payload/...

.PHONY: clean
clean: ## remove what was built, not the download cache
	rm -rf $(BIN) $(OUT)/demo $(OUT)/test
