# hubex: build, install, try and test. `make help` lists what there is.
#
# Two halves. The goals that try and test the project (tools/, .ci/) need neither PostgreSQL nor PGXS to be there
# yet: they install what is missing first. Everything else is PGXS, as in any PostgreSQL extension. The halves are
# never in one make, because PGXS has a `check` of its own that only says it cannot.

PG_CONFIG ?= pg_config
CURL_CONFIG ?= curl-config
PORT ?= 8080
export PG_CONFIG CURL_CONFIG

TOOL_GOALS = check chaos demo bench sandbox playground playground-stop lint deps help

ifneq (,$(filter $(TOOL_GOALS),$(MAKECMDGOALS)))

.PHONY: $(TOOL_GOALS)
.NOTPARALLEL:

help:
	@sed -n 's/^## //p' Makefile

## make                 build the extension             (PG_CONFIG=/path/to/pg_config for another server)
## make install         install it into the server      (DESTDIR= as usual; `make uninstall` takes it out)
## make installcheck    run sql/ against the running server
## make demo            ERP rows become HubEx tasks, in a throw-away server and sandbox
## make check           everything that is tested       (TESTS='010 test/t/020_x.pl' for some files only)
## make chaos           clients change rows while all they depend on fails; writes docs/chaos.md
##                      (SEED=1 to repeat a run, REQUESTS=20000, CLIENTS=4)
## make bench           measure, and write bench/RESULTS.md (about 10 minutes; QUICK=1: 2 minutes; ONLY=delivery: a part of it;
##                      ROUNDS=, N=, CONCURRENCY=, WAITING=, MINUTES=, ROWS=, MIRROR=: see bench/perl/Bench.pm)
## make lint            the house rules of src/ only
## make sandbox         a HubEx to develop against      (PORT=8080)
## make playground      a server with hubex and a sandbox that stay; `make playground-stop` ends them
## make deps            install, or name, the packages all this needs
## make clean           remove what was built

deps:
	@exec tools/deps

check: deps
	@TESTS='$(TESTS)' exec tools/check

chaos: deps
	@SEED='$(SEED)' REQUESTS='$(REQUESTS)' CLIENTS='$(CLIENTS)' exec tools/chaos

demo: deps
	@exec tools/demo

BENCH_OPTIONS = QUICK ONLY ROUNDS N CONCURRENCY WAITING MINUTES ROWS MIRROR
bench:
	@exec tools/deps bench
	@exec env $(foreach option,$(BENCH_OPTIONS),HUBEX_BENCH_$(option)='$($(option))') tools/bench

sandbox: deps
	@exec env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 test/sandbox --port $(PORT)

playground: deps
	@exec tools/playground

playground-stop:
	@exec tools/playground stop

lint: deps
	@exec .ci/lint

# PGXS goals named in the same command go to a make of their own.
PGXS_GOALS := $(filter-out $(TOOL_GOALS),$(MAKECMDGOALS))
.PHONY: $(PGXS_GOALS)
$(PGXS_GOALS):
	@$(MAKE) $@

else

PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))
CURL := $(shell $(CURL_CONFIG) --version 2>/dev/null)

ifeq (,$(and $(PGXS),$(CURL)))

all $(filter-out all,$(MAKECMDGOALS)):
	@$(if $(PGXS),,echo 'hubex: the server headers of PostgreSQL ($(PG_CONFIG) --pgxs) are not there' >&2)
	@$(if $(CURL),,echo 'hubex: the headers of libcurl ($(CURL_CONFIG)) are not there' >&2)
	@echo 'hubex: `make deps` installs or names what is needed, `make help` lists the goals' >&2; exit 2
.PHONY: all $(MAKECMDGOALS)

else

EXTENSION = hubex
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" hubex.control)
MODULE_big = hubex
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
DATA = $(wildcard hubex--*.sql)
CONNECTORS = $(wildcard connectors/*.json)
REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))

PG_CPPFLAGS = -Isrc $(shell $(CURL_CONFIG) --cflags) -DHUBEX_VERSION=\"$(EXTVERSION)\"
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare \
	-Wno-declaration-after-statement
SHLIB_LINK = $(shell $(CURL_CONFIG) --libs)

# Bitcode for the JIT needs the very clang that PostgreSQL was built with; hubex does without where it is missing.
ifeq (,$(shell command -v $(shell sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)))
override with_llvm = no
endif

include $(PGXS)

ifneq (ok,$(shell test $(MAJORVERSION) -ge 15 2>/dev/null && echo ok))
$(error hubex needs PostgreSQL 15 or newer, and $(PG_CONFIG) is of $(MAJORVERSION); name another with PG_CONFIG=)
endif
ifneq (,$(shell $(CURL_CONFIG) --checkfor 7.88.0 2>&1))
$(error hubex needs libcurl 7.88 or newer, and $(CURL_CONFIG) is of $(CURL))
endif

# PGXS has no dependency tracking: a change of any header rebuilds all.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h src/*/*.h) hubex.control Makefile

connectordir = $(DESTDIR)$(datadir)/extension/hubex
install: install-connectors
uninstall: uninstall-connectors
.PHONY: install-connectors uninstall-connectors
install-connectors: installdirs
	$(MKDIR_P) '$(connectordir)'
	$(if $(CONNECTORS),$(INSTALL_DATA) $(CONNECTORS) '$(connectordir)/')
uninstall-connectors:
	rm -rf '$(connectordir)'

endif
endif
