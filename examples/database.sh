#!/bin/sh
# A PostgreSQL for an example, as far from its servers as one on another machine: in a network namespace of its own, behind a pair
# of virtual interfaces. Needs root, Debian's `postgresql` and `iproute2`. What `start` makes, `stop` removes.
#
#     database.sh start examples/wiki      makes it, and its password in the example's db.password
#     database.sh address examples/wiki    where it answers: 198.51.100.2, or further on when others like it run on this host
#     database.sh psql examples/wiki …     a client of it
#     database.sh stop examples/wiki       ends it; its data is gone
set -eu
umask 077
usage() {
    echo "usage: database.sh start|address|psql|stop EXAMPLE" >&2
    exit 2
}

[ "$#" -ge 2 ] && [ -e "$2/fleet.toml" ] || usage
verb=$1
here=$(cd "$2" && pwd)
shift 2
# User and database have the name of the example.
name=$(basename "$here")
# The number of the database that was started for it.
mine=$here/db.number

programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
command -v ip >/dev/null || { echo "install Debian's package \`iproute2\`" >&2; exit 4; }
[ -x "$programs/postgres" ] || { echo "install Debian's package \`postgresql\`" >&2; exit 4; }

# Each has four addresses of TEST-NET-2.
choose() {
    place=/run/kiln-example-db$1
    link=example-db$1
    ours=198.51.100.$(($1 * 4 + 1))
    its=198.51.100.$(($1 * 4 + 2))
}

claim() {
    number=0
    choose "$number"
    until mkdir -m 0711 "$place" 2>/dev/null; do
        number=$((number + 1))
        [ "$number" -lt 64 ] || { echo "there is no free address: see /run/kiln-example-db*" >&2; exit 1; }
        choose "$number"
    done
    echo "$number" >"$mine"
}

started() {
    [ -e "$mine" ] || { echo "no database was started for $here: \`database.sh start $here\`" >&2; exit 1; }
    choose "$(cat "$mine")"
}

as_postgres() {
    setpriv --reuid postgres --regid postgres --clear-groups --inh-caps=-all "$@"
}

make_data() {
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$here/db.password"
    install -m 0600 -o postgres "$here/db.password" "$place/password"
    install -d -m 0700 -o postgres -g postgres "$place/data"
    (cd "$place/data" && as_postgres "$programs/initdb" -D "$place/data" -U "$name" -A scram-sha-256 -E UTF8 \
        --pwfile="$place/password" >"$place/log" 2>&1) || { cat "$place/log" >&2; exit 1; }
    rm "$place/password"
    echo "host all all 0.0.0.0/0 scram-sha-256" >"$place/data/pg_hba.conf"
}

run_apart() {
    (cd "$place/data" && exec setsid unshare --net setpriv --reuid postgres --regid postgres --clear-groups \
        "$programs/postgres" -D "$place/data" -c listen_addresses=0.0.0.0 -c unix_socket_directories= \
        -c shared_buffers=32MB </dev/null >>"$place/log" 2>&1 &
    echo $! >"$place/pid")
    while [ "$(readlink "/proc/$(cat "$place/pid")/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    pid=$(cat "$place/pid")
    ip link add "$link" type veth peer name eth0 netns "$pid"
    ip addr add "$ours/30" dev "$link"
    ip link set "$link" up
    nsenter --net --target "$pid" sh -c "ip addr add $its/30 dev eth0; ip link set eth0 up"
    # Servers' connections come through this host.
    echo 1 >"/proc/sys/net/ipv4/conf/$link/forwarding"
}

client() {
    PGPASSWORD=$(cat "$here/db.password") "$@"
}

case "$verb" in
start)
    [ ! -e "$mine" ] || { echo "it runs already, or was not ended: \`database.sh stop $here\`" >&2; exit 1; }
    claim
    make_data
    run_apart
    i=0
    until "$programs/pg_isready" --quiet --host="$its"; do
        i=$((i + 1))
        [ "$i" -lt 100 ] || { cat "$place/log" >&2; exit 1; }
        sleep 0.1
    done
    client "$programs/psql" --quiet --host="$its" --username="$name" --dbname=postgres \
        --command="create database \"$name\""
    echo "PostgreSQL answers at $its:5432; its password is in $here/db.password"
    grep -qF "\"$its\"" "$here/fleet.toml" || echo "Write it into $here/fleet.toml: host = \"$its\""
    ;;
address)
    started
    echo "$its"
    ;;
psql)
    started
    client "$programs/psql" --host="$its" --username="$name" --dbname="$name" "$@"
    ;;
stop)
    [ -e "$mine" ] || exit 0
    started
    if pid=$(cat "$place/pid" 2>/dev/null) && kill -INT "$pid" 2>/dev/null; then
        while [ -d "/proc/$pid" ]; do sleep 0.05; done
    fi
    # The namespace may live on until the last connection in it is given up.
    ip link del "$link" 2>/dev/null || :
    rm -rf "$place" "$here/db.password" "$mine"
    ;;
*)
    usage
    ;;
esac
