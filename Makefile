# make            build the static tools, in release mode
# make install    install them; accepts DESTDIR= and PREFIX=/usr/local. Beside PREFIX it writes
#                 /etc/subhosts.conf, /etc/init.d/subhosts, the link /var/lib/overlay-boot, and
#                 completions in /etc/fish unless PREFIX is /usr
# make uninstall  remove the installed files; accepts the same variables. Changed files in /etc and
#                 directories of other programs stay
# make check      run everything that must pass before a change is merged
# Targets that take long: make soak, make sweep, make fuzz, make bench, make check-vm.

PREFIX = /usr/local
BIN = $(DESTDIR)$(PREFIX)/bin
SBIN = $(DESTDIR)$(PREFIX)/sbin
LIB = $(DESTDIR)$(PREFIX)/lib/overlay-boot
# Hooks written for overlay-boot 1.6.4 look for the default hooks here.
HOOKS = $(DESTDIR)/var/lib/overlay-boot
SHARE = $(DESTDIR)$(PREFIX)/share
MAN = $(SHARE)/man
# Debian reserves vendor-completions for packages.
ZSH = $(SHARE)/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
# fish searches /usr/local only if XDG_DATA_DIRS names it, which is not so for root. For other
# prefixes the completions are installed in /etc/fish.
FISH = $(if $(filter /usr,$(PREFIX)),$(SHARE)/fish/vendor_completions.d,$(DESTDIR)/etc/fish/completions)

TOOLS = ob-conf ob-room ob-mount ob-cable ob-unshare ob-enter ob-list ob-diff ob-reaper
COMMANDS = $(notdir $(wildcard scripts/overlay-*))
TYPED = $(filter-out %-init %-premount %-postmount,$(COMMANDS))
ARCH = $(shell uname -m)

# With musl a tool starts in a third of the time that it needs with glibc. Both are linked
# statically: the root of a subhost may have no C library.
MUSL = $(shell rustup target list --installed 2>/dev/null | grep -x $(ARCH)-unknown-linux-musl)
TARGET = $(or $(MUSL),$(ARCH)-unknown-linux-gnu)
BUILDS = $(or $(CARGO_TARGET_DIR),target)
OUT = $(BUILDS)/$(TARGET)/release
# The directory of the latest build. "make install" under sudo may have no rustup in its PATH.
BUILT = $(dir $(shell ls -t $(BUILDS)/$(ARCH)-unknown-linux-*/release/ob-conf | head -n 1))

all:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET) \
		$(addprefix -p ,$(TOOLS))

# Prints the directory of the built tools, for scripts that run them from the source tree.
where:
	@echo $(OUT)

install:
	install -d $(BIN) $(SBIN) $(LIB) $(MAN)/man1 $(MAN)/man5 $(MAN)/man7 $(MAN)/man8
	install -m 755 $(addprefix $(BUILT),$(TOOLS)) $(BIN)
	install -m 755 $(addprefix scripts/,$(COMMANDS)) $(LIB)
	install -m 644 scripts/functions scripts/subhost-init $(LIB)
	ln -sf ../../bin/ob-reaper $(LIB)/reaper
	for command in $(TYPED); do \
		ln -sf ../lib/overlay-boot/$$command $(SBIN)/$$command || exit; done
	install -d $(dir $(HOOKS))
	[ -e $(HOOKS) ] || [ -L $(HOOKS) ] || ln -s ../..$(PREFIX)/lib/overlay-boot $(HOOKS)
	install -D -m 644 etc/completions/_overlay $(ZSH)/_overlay
	install -D -m 644 etc/completions/overlay.bash $(SHARE)/bash-completion/completions/overlay-boot
	install -D -m 644 etc/completions/overlay.fish $(FISH)/overlay-boot.fish
	for command in $(filter-out overlay-boot,$(TYPED)) $(TOOLS); do \
		ln -sf overlay-boot $(SHARE)/bash-completion/completions/$$command && \
		ln -sf overlay-boot.fish $(FISH)/$$command.fish || exit; done
	install -D -m 755 etc/init.d/subhosts $(DESTDIR)/etc/init.d/subhosts
	[ -e $(DESTDIR)/etc/subhosts.conf ] || install -D -m 644 etc/subhosts.conf $(DESTDIR)/etc/subhosts.conf
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,/usr/sbin,$(PREFIX)/sbin,' etc/systemd/subhosts@.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/subhosts@.service
	for section in 1 5 7 8; do for page in man/*.$$section; do \
		[ ! -e $$page ] || install -m 644 $$page $(MAN)/man$$section || exit; done; done

# Removes the files that install has written. A running subhost needs none of them, but overlay-stop
# does: it stops the subhosts.
uninstall:
	rm -f $(addprefix $(BIN)/,$(TOOLS)) $(addprefix $(SBIN)/,$(TYPED))
	rm -f $(addprefix $(LIB)/,$(COMMANDS) functions subhost-init reaper)
	[ ! -d $(LIB) ] || rmdir --ignore-fail-on-non-empty $(LIB)
	[ "$$(readlink $(HOOKS))" != ../..$(PREFIX)/lib/overlay-boot ] || rm $(HOOKS)
	rm -f $(ZSH)/_overlay
	for command in $(TYPED) $(TOOLS); do \
		rm -f $(SHARE)/bash-completion/completions/$$command $(FISH)/$$command.fish || exit; done
	for file in init.d/subhosts subhosts.conf; do \
		! cmp -s etc/$$file $(DESTDIR)/etc/$$file || rm $(DESTDIR)/etc/$$file || exit; done
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/subhosts@.service
	for section in 1 5 7 8; do for page in man/*.$$section; do \
		rm -f $(MAN)/man$$section/$${page#man/} || exit; done; done

check: lint
	tests/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps --document-private-items --locked
	shellcheck -x $$(git ls-files scripts .ci tests benches debian docs etc | xargs grep -lE '^#!/bin/(ba)?sh' --)
	mandoc -T lint -W warning man/*.[1-8]
	docs/picture | cmp - docs/subhost.svg
	tests/lint/prose -q
	tests/lint/long
	tests/lint/cycles
	codespell -L crate,nd,maks $$(git ls-files | grep -vE '\.lock$$|\.svg$$|^fuzz/seeds/')
	cargo deny --version >/dev/null 2>&1 || { echo 'NOT DONE: cargo-deny is not installed'; exit 0; } && \
		cargo deny --locked check bans licenses sources

# Compiles with the oldest Rust that Cargo.toml allows, if cargo or rustup has that version.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv:
	@case $$(cargo --version) in \
	'cargo $(MSRV).'*) toolchain= ;; \
	*) rustup toolchain install --profile minimal $(MSRV) && toolchain=+$(MSRV) || \
		{ echo 'NOT DONE: msrv: needs Rust $(MSRV)'; exit 0; } ;; \
	esac; \
	cargo $$toolchain check --workspace --all-targets --locked --target-dir $(BUILDS)/msrv

# Runs the tests on other kernels. VM lists directories with machines that tests/vm/build made.
VM = vm/bookworm vm/trixie
check-vm:
	tests/vm/check $(VM)

# Tests the Debian package on these machines: installation, unit, init script, VLAN cables, reboot,
# upgrade, removal.
PACKAGE = ../overlay-boot-rs_*.deb
check-package:
	tests/vm/check-package $(PACKAGE) $(VM)

# Measures the speed. bench-short only checks that the benchmark works: it compares no time and
# writes no file. Both run as root.
bench: all
	$(BENCH)
	$(IN_OUT) bench --output docs
bench-short: all
	$(BENCH)
	$(IN_OUT) bench --short >/dev/null

# Runs the attacks of root inside at each level on the running kernel, writes the results to
# docs/security.md, and runs the tests of the other sides. Runs as root.
KERNEL = $(shell uname -r | cut -d. -f1-2)
attacks: all attack
	OB_ATTACKS_TO="$(CURDIR)/tests/attacks/results/$(KERNEL).json" $(IN_OUT) cargo test --locked -p end-to-end --test all -- attacks::every
	cargo run --quiet --locked -p attacks -- page docs/security.md
# Builds the program of the attacks, static, since it runs in any root. Prints its path.
attack:
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --locked --target $(TARGET) -p attacks
	@echo $(BUILDS)/$(TARGET)/debug/attack

# Fuzzes the parsers of external input, each for TIME seconds. Needs nightly Rust and cargo-fuzz,
# see fuzz/README.md.
TIME = 60
fuzz:
	for target in conf document profile netlink; do \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(TIME) \
			$$([ ! -e fuzz/$$target.dict ] || echo -dict=fuzz/$$target.dict) || exit; done

# soak: measures what grows in a thousand boots and stops. sweep: interrupts a boot and a stop at
# every step. See docs/reliability.md. Both run as root.
soak: all
	$(LONG) --bin soak
	$(IN_OUT) $(TESTS)/soak
sweep: all
	$(LONG) --bin sweep
	$(IN_OUT) $(TESTS)/sweep

LONG = cargo build --release --locked -p end-to-end
TESTS = $(abspath $(or $(CARGO_TARGET_DIR),target))/release

BENCH = RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET) -p benches
IN_OUT = $(SUDO) env PATH="$(abspath $(OUT)):$(CURDIR)/scripts:$$PATH" OB_BIN="$(abspath $(OUT))" OB_SCRIPTS="$(CURDIR)/scripts"
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: msrv fuzz attacks attack soak sweep bench bench-short all where install uninstall check lint check-vm check-package
