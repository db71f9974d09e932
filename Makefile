# make            build the tools, static, for release
# make install    install them; DESTDIR= and PREFIX=/usr/local as everywhere
# make check      all that must pass before a change goes in
# The long ones: make soak, make sweep, make fuzz, make bench, make check-vm.

PREFIX = /usr/local
BIN = $(DESTDIR)$(PREFIX)/bin
SBIN = $(DESTDIR)$(PREFIX)/sbin
LIB = $(DESTDIR)$(PREFIX)/lib/overlay-boot
# Where the hooks of the shell scripts look for the defaults, and new ones may.
HOOKS = $(DESTDIR)/var/lib/overlay-boot
SHARE = $(DESTDIR)$(PREFIX)/share
MAN = $(SHARE)/man
# Debian keeps the one for packages.
ZSH = $(SHARE)/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
# fish looks below /usr/local only if XDG_DATA_DIRS names it, which it does not for root; the administrator's are in /etc.
FISH = $(if $(filter /usr,$(PREFIX)),$(SHARE)/fish/vendor_completions.d,$(DESTDIR)/etc/fish/completions)

TOOLS = ob-conf ob-mount ob-cable ob-unshare ob-enter ob-list ob-diff ob-reaper
COMMANDS = $(notdir $(wildcard scripts/overlay-*))
TYPED = $(filter-out %-init %-premount %-postmount,$(COMMANDS))
ARCH = $(shell uname -m)

# With musl a tool starts in a third of the time that it takes with glibc; both are static, for a subhost's root may have neither.
MUSL = $(shell rustup target list --installed 2>/dev/null | grep -x $(ARCH)-unknown-linux-musl)
TARGET = $(or $(MUSL),$(ARCH)-unknown-linux-gnu)
BUILDS = $(or $(CARGO_TARGET_DIR),target)
OUT = $(BUILDS)/$(TARGET)/release
# What was built last is installed: whoever may install, as under sudo, may have no rustup to ask.
BUILT = $(dir $(shell ls -t $(BUILDS)/$(ARCH)-unknown-linux-*/release/ob-conf | head -n 1))

all:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET) \
		$(addprefix -p ,$(TOOLS))

# Where the tools were built, for scripts that run them from the source tree.
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

check: lint
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	shellcheck $$(git ls-files scripts .ci tests benches debian docs etc | xargs grep -lE '^#!/bin/(ba)?sh' --)
	mandoc -T lint -W warning man/*.[1-8]
	docs/picture | cmp - docs/subhost.svg

# The same tests on other kernels: VM names directories with machines that tests/vm/build has made.
VM = vm/bookworm vm/trixie
check-vm:
	tests/vm/check $(VM)

# The Debian package on the same machines: installation, unit, init script, VLAN cables, reboot, upgrade, removal.
PACKAGE = ../overlay-boot-rs_*.deb
check-package:
	tests/vm/check-package $(PACKAGE) $(VM)

# The short one only sees that it works: it judges no time, and writes nothing. Both run as root.
bench: all
	$(BENCH)
	$(IN_OUT) bench --output docs
bench-short: all
	$(BENCH)
	$(IN_OUT) bench --short >/dev/null

# What root inside can do, at each level, measured on the kernel in use and put into docs/security.md, and the tests of the other
# sides. Runs as root.
KERNEL = $(shell uname -r | cut -d. -f1-2)
attacks: all attack
	OB_ATTACKS_TO="$(CURDIR)/tests/attacks/results/$(KERNEL).json" $(IN_OUT) cargo test --locked -p end-to-end --test all -- attacks::every
	cargo run --quiet --locked -p attacks -- page docs/security.md
# Its program alone, static, since it is run in any root; prints where it is.
attack:
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --locked --target $(TARGET) -p attacks
	@echo $(BUILDS)/$(TARGET)/debug/attack

# The readers of what comes from elsewhere on whatever bytes, each for TIME seconds. Wants nightly and cargo-fuzz: fuzz/README.md.
TIME = 60
fuzz:
	for target in conf document profile netlink; do \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(TIME) \
			$$([ ! -e fuzz/$$target.dict ] || echo -dict=fuzz/$$target.dict) || exit; done

# A thousand boots and stops, and what grows; every step of a boot and a stop broken off: docs/reliability.md. Both run as root.
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

.PHONY: fuzz attacks attack soak sweep bench bench-short all where install check lint check-vm check-package
