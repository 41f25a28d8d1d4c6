#!/bin/sh
# Makes the database if there is none, then becomes PostgreSQL. Runs as the user postgres.
# Slot 0 is the primary. Every other slot begins with a clone of its data and follows it.
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH
export PATH PGPASSWORD="${POSTGRES_PASSWORD:?give the group an environment with POSTGRES_PASSWORD}"

if [ "${KILN_SLOT:-0}" -gt 0 ]; then
    touch "$PGDATA/standby.signal"
else
    [ ! -e "$PGDATA/standby.signal" ] || rm "$PGDATA/standby.signal"
    # Made beside its place and moved there whole: a server that is killed meanwhile leaves none or all of it.
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        umask 077
        rm -rf "$PGDATA.new"
        printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
        initdb --pgdata="$PGDATA.new" --username=postgres --pwfile=/tmp/password --auth-local=trust \
            --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 > /tmp/initdb.log || { cat /tmp/initdb.log >&2; exit 1; }
        rm /tmp/password
        mv "$PGDATA.new" "$PGDATA"
    fi
fi

# Whoever wrote this had the volume before, was killed, or is whom it was cloned from: only one server has it at a time. The number
# in it may be another process's here.
rm -f "$PGDATA/postmaster.pid"
exec postgres -c config_file=/etc/postgresql/server.conf
