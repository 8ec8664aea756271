# What the scripts of tools/ share: a private workspace, and a server and a sandbox in it.
#
# hubex is never tried out in place. A workspace is a directory of its own, below TMPDIR, that holds
#   src/   a copy of the work tree, where hubex is built: the clone stays as it is
#   pg/    PostgreSQL, relocated: its programs copied, its libraries and data files linked, hubex installed among
#          them. The server finds all by its own place, so the system's installation is not touched
#   tmp/   TMPDIR of all that runs in it
# and every process started for it works in a directory below it, which is how they are found and ended.
# PostgreSQL does not run as root: when root, a workspace belongs to `postgres` (or `nobody`), who does everything.
#
# A script is therefore run twice: outside, by whoever called it, where it makes a workspace and starts itself in it;
# then inside, with HUBEX_RUN naming the workspace.
set -eu

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=tools/$(basename "$0")
: "${PG_CONFIG:=pg_config}"
ulimit -c 0

say() { echo "hubex: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# Polls a command until it succeeds; fails when the time is up.
wait_until() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.05
	done
}

# ---- outside ----

if [ "$(id -u)" = 0 ]; then
	owner=$(id -nu postgres 2>/dev/null || echo nobody)
	as_owner=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --init-groups --)
else
	owner=$(id -nu)
	as_owner=()
fi

# The files of the work tree, as git sees them: what is not ignored, committed or not.
work_tree() {
	cd "$top"
	git -c safe.directory='*' ls-files -coz --exclude-standard 2>/dev/null | perl -0lne 'print if -e' | grep -z . ||
		find . -name .git -prune -o -name '*.o' -o -name '*.bc' -o -name '*.so' -o -type f -print0
}

make_workspace() { # DIRECTORY, an empty one
	mkdir "$1/src" "$1/tmp"
	work_tree | tar -C "$top" --null -T - -cf - | tar -C "$1/src" --no-same-owner -xf -
	[ "$(id -u)" != 0 ] || chown -R "$owner:" "$1"
	"${as_owner[@]}" test -w "$1/src" || die "$owner cannot enter $1: set TMPDIR to a directory that others can enter"
}

# Starts this script again, inside: with nothing of the caller's environment but what is named here.
inside() { # DIRECTORY
	local variable keep=()
	for variable in ${!HUBEX_*} ${!PG_TEST_*} TERM CI CC TESTS SEED REQUESTS CLIENTS PG_CONFIG CURL_CONFIG; do
		[ -z "${!variable:-}" ] || keep+=("$variable=${!variable}")
	done
	(cd "$1/src" && exec env -i --default-signal=INT,QUIT "${as_owner[@]}" env "${keep[@]}" "HUBEX_RUN=$1" \
		PATH="$PATH" HOME="$1" TMPDIR="$1/tmp" LANG=C.UTF-8 "$script")
}

processes_of() { find /proc -maxdepth 2 -name cwd -lname "$1/*" -printf '%h\n' 2>/dev/null | grep -oE '[0-9]+$' || true; }

idle() { [ -z "$(processes_of "$1")" ]; }

# Ends what runs in a workspace, and frees the shared memory of servers that were killed before they could.
end_processes() { # DIRECTORY
	local signal pids all=' '
	for signal in TERM QUIT KILL; do
		pids=$(processes_of "$1")
		[ -n "$pids" ] || break
		all+="$pids "
		kill "-$signal" $pids 2>/dev/null || true
		wait_until 5 idle "$1" || true
	done
	awk -v all="$(echo $all)" 'BEGIN { n = split(all, a); while (n) ours[a[n--]] } $5 in ours && $7 == 0 { print $2 }' \
		/proc/sysvipc/shm 2>/dev/null | xargs -r -n1 ipcrm -m
}

discard_workspace() { # DIRECTORY
	end_processes "$1"
	rm -rf "$1"
}

# Only the first signal counts: the EXIT trap, which cleans up, must not be cut short by a second.
exit_on_signals() { trap 'trap "" INT TERM HUP; exit 130' INT TERM HUP; }

# Runs the script inside a workspace that is gone afterwards, whatever happens. HUBEX_KEEP=1 keeps its files. Where it
# succeeds, the files it made of those that are named here are brought back to the work tree.
throw_away() { # FILE...
	local file
	[ -z "${HUBEX_RUN:-}" ] || return 0
	run=$(mktemp -d --suffix=.hubex)
	trap leave EXIT
	exit_on_signals
	make_workspace "$run"
	inside "$run" &
	wait $! || exit $?
	for file; do
		cp "$run/src/$file" "$top/$file"
	done
	exit 0
}

leave() {
	disown -a || true # or bash tells of its death
	if [ -n "${HUBEX_KEEP:-}" ]; then
		end_processes "$run"
		say "kept: $run"
	else
		discard_workspace "$run"
	fi
}

# ---- inside ----

# Builds hubex, with further arguments to make, and installs it into the workspace's PostgreSQL.
build() {
	local bindir sharedir pkglibdir directory
	PG_CONFIG=$(command -v "$PG_CONFIG") # the system's, whatever comes first in PATH below
	bindir=$("$PG_CONFIG" --bindir)
	sharedir=$("$PG_CONFIG" --sharedir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	pg=$HUBEX_RUN/pg
	mkdir -p "$pg$bindir"
	find -L "$bindir" -maxdepth 1 -type f -exec cp -t "$pg$bindir" {} +
	for directory in "$sharedir" "$pkglibdir"; do
		mkdir -p "$pg${directory%/*}"
		cp -as "$directory" "$pg${directory%/*}/"
	done
	rm -rf "$pg$sharedir"/extension/hubex* "$pg$pkglibdir"/hubex* "$pg$pkglibdir"/bitcode/hubex*
	export PATH="$pg$bindir:$PATH"
	postgres --version >/dev/null || die "programs cannot run below $HUBEX_RUN: set TMPDIR to another place"
	make -s -j"$(nproc)" with_llvm=no DESTDIR="$pg" "$@" install >"$HUBEX_RUN/build.log" 2>&1 || {
		cat "$HUBEX_RUN/build.log" >&2
		return 1
	}
}

# What test/t and bench need to find PostgreSQL's test modules and ours; after build.
test_environment() {
	local pgxs
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	export PG_REGRESS=$pgxs/src/test/regress/pg_regress
	export PERL5LIB=$PWD/test/perl:$pgxs/src/test/perl
	export TESTDIR=$HUBEX_RUN # of PostgreSQL 15; the others of 16 and later
	export TESTDATADIR=$HUBEX_RUN/tmp_check TESTLOGDIR=$HUBEX_RUN/tmp_check/log
}

# A server with hubex preloaded; its socket is in the workspace, and it listens on no address.
start_server() {
	export PGHOST=$HUBEX_RUN PGUSER=postgres PGDATABASE=postgres
	initdb -D "$HUBEX_RUN/data" -U postgres -A trust -N -E UTF8 >"$HUBEX_RUN/initdb.log" 2>&1 ||
		{ cat "$HUBEX_RUN/initdb.log" >&2; return 1; }
	cat >>"$HUBEX_RUN/data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$HUBEX_RUN'
		shared_preload_libraries = 'hubex'
		fsync = off
	CONF
	pg_ctl -s -w -D "$HUBEX_RUN/data" -l "$HUBEX_RUN/server.log" start || { cat "$HUBEX_RUN/server.log" >&2; return 1; }
}

# A sandbox, with further arguments to it. Sets sandbox_url and service_token.
start_sandbox() {
	local ready=$HUBEX_RUN/sandbox.json
	PYTHONDONTWRITEBYTECODE=1 setsid /usr/bin/python3 test/sandbox --ready-file "$ready" "$@" \
		>"$HUBEX_RUN/sandbox.log" 2>&1 </dev/null &
	wait_until 30 test -e "$ready" || { cat "$HUBEX_RUN/sandbox.log" >&2; return 1; }
	sandbox_url=$(json_value url <"$ready")
	service_token=$(json_value service_token <"$ready")
}

json_value() { perl -MJSON::PP -e 'print decode_json(join "", <STDIN>)->{$ARGV[0]}' "$1"; } # NAME, of the object in stdin
