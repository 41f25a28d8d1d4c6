#!/bin/sh
# Makes the Redis of every slot but the first a replica of that: after slot 0's server was replaced, it is at another address.
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
        # While Redis is not up yet, it is told again.
        redis-cli -e replicaof "$address" 6379 && known=$address && echo "the primary is at $address"
    fi
    sleep 1
done
