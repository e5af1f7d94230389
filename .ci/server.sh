# shellcheck shell=bash
# A server of a built binary on a private Postgres and free loopback ports, for the checks that need
# one. Sourced by tour and metrics, which set `here` (this directory) and call:
#
#   start_server BINARY     sets work, data_dir, port and http_port; returns when it is healthy
#   stop_server             ends it by SIGTERM, and fails unless it ends cleanly
#
# In any case, the server has ended and its files are removed when the script ends.

server=
work=

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

hide_secrets() {
    sed -E 's/tokd_[0-9A-Za-z]{71}/tokd_[hidden]/g'
}

end() {
    local status=$?
    if [[ $server ]] && kill -0 "$server" 2>/dev/null; then
        kill -TERM "$server"
        wait "$server" || true
    fi
    if [[ $status -ne 0 && -f $work/server.log ]]; then hide_secrets <"$work/server.log" >&2; fi
    rm -rf "$work"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_server() {
    local binary=$1 deadline
    # As root, Postgres runs as another user, who must have access to its files below.
    work=$(mktemp -d)
    trap end EXIT
    chmod 0711 "$work"
    umask 077
    data_dir=$work/data
    port=$(free_port)
    http_port=$(free_port)
    "$binary" serve --data-dir "$data_dir" --listen "127.0.0.1:$port" \
        --http-listen "127.0.0.1:$http_port" >"$work/server.log" 2>&1 &
    server=$!
    deadline=$((SECONDS + 60))
    until TOKEND_ADDRESS="http://127.0.0.1:$port" "$binary" healthcheck >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || fail "the server ended before it was healthy"
        ((SECONDS < deadline)) || fail "the server was not healthy within 60 s"
        sleep 0.1
    done
}

stop_server() {
    local deadline=$((SECONDS + 20)) status=0
    kill -TERM "$server"
    while kill -0 "$server" 2>/dev/null; do
        ((SECONDS < deadline)) || { kill -KILL "$server"; fail "the server did not end within 20 s of SIGTERM"; }
        sleep 0.1
    done
    wait "$server" || status=$?
    [[ $status -eq 0 ]] || fail "the server ended with status $status after SIGTERM"
    [[ -z $(find "$data_dir" -name postmaster.pid) ]] || fail "its Postgres still runs"
}
