#!/bin/sh
# Makes the database if there is none, then becomes PostgreSQL. Runs as the user postgres.
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH
export PATH

# Made beside its place and moved there whole: a server that is killed meanwhile leaves none or all of it.
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    rm -rf "$PGDATA.new"
    printf '%s\n' "${POSTGRES_PASSWORD:?give the group an environment with POSTGRES_PASSWORD}" > /tmp/password
    initdb --pgdata="$PGDATA.new" --username=postgres --pwfile=/tmp/password --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 > /tmp/initdb.log || { cat /tmp/initdb.log >&2; exit 1; }
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA.new/pg_hba.conf"
    mv "$PGDATA.new" "$PGDATA"
fi

exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c logging_collector=off
