# Each target makes what it needs: on a fresh Debian 12, python3, make and git are enough.
VIRT := bin/virt
IN := .venv/bin/
BENCHES := closure tree create start many log wrapper serve flood zygote image

.PHONY: demo test golden check bench dist .venv

demo: .venv/made
	@[ "$$(id -u)" = 0 ] || { echo "a tree has owners and device nodes that only root can make: sudo make demo" >&2; exit 77; }
	@set -e; VIRT_ROOT=$$(mktemp -d /var/tmp/virttools-demo.XXXXXX); export VIRT_ROOT; \
	trap 'find "$$VIRT_ROOT" -xdev -depth -delete' EXIT; \
	chmod 755 "$$VIRT_ROOT"; set -x; \
	$(VIRT) create domain1.com; \
	$(VIRT) show domain1.com; \
	$(VIRT) exec --domain domain1.com -- sh -c 'id; pwd; cat /etc/hostname; ls /'; \
	{ set +x; } 2>/dev/null; $(VIRT) --quiet remove --yes domain1.com >&2

test: .venv/made
	-@tests/install-packages
	@# Every core; what shares a tree stays together; in our own order (tests/conftest.py).
	$(IN)pytest -n auto --dist loadfile --no-loadscope-reorder

golden: .venv/made
	VIRT_GOLDEN=write $(IN)pytest -q tests/test_plan.py

check: .venv/made
	$(IN)ruff format --check .
	$(IN)ruff check .
	$(IN)mypy

bench: .venv/made
	-@tests/install-packages gcc libc6-dev openbsd-inetd tcpd pax-utils jailkit ncurses-term vim e2fsprogs mount mmdebstrap zstd
	@set -e; for name in $(BENCHES); do echo "# $$name"; $(IN)python -m "bench.$$name"; done

dist: .venv/made
	$(IN)python -m build

.venv: .venv/made

.venv/made: pyproject.toml
	@python3 -c 'import ensurepip, venv' 2>/dev/null || tests/install-packages python3-venv
	python3 -m venv .venv
	$(IN)pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(IN)pip install --quiet --editable '.[image]' --group dev
	@touch $@
