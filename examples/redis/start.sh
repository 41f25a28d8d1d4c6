#!/bin/sh
# Becomes Redis. Slot 0 is the primary; another slot takes no writes, also before follow.sh has found the primary.
set -eu
[ "${KILN_SLOT:-0}" -eq 0 ] || set -- --replicaof 127.0.0.1 1
exec redis-server /etc/redis/kiln.conf "$@"
