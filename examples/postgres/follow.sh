#!/bin/sh
# Tells the PostgreSQL of a replica where its primary is: after slot 0's server was replaced, that is at another address.
set -u
[ "${KILN_SLOT:-0}" -gt 0 ] || exec sleep infinity
metadata=http://169.254.169.254

# The address of slot 0's server; fails while none is ready there.
primary() {
    token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token") || return
    curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$metadata/kiln/v1/slots/0"
}

known=
while :; do
    if address=$(primary) && [ "$address" != "$known" ]; then
        echo "primary_conninfo = 'host=$address user=postgres application_name=slot-$KILN_SLOT'" > /tmp/primary.new
        mv /tmp/primary.new /tmp/primary.conf
        # While PostgreSQL is not up yet, it is told again. Until it answers, if only that it is starting, the number in its lock file
        # may be another process's.
        /usr/lib/postgresql/15/bin/pg_isready --host=127.0.0.1 --quiet
        [ $? -lt 2 ] && /usr/lib/postgresql/15/bin/pg_ctl reload --silent && known=$address && echo "the primary is at $address"
    fi
    sleep 1
done
