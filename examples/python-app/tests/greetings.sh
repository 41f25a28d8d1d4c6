#!/bin/sh
# Runs outside the server, which is reached at $KILN_SERVER_ADDRESS.
set -eu
for name in Ada Grace Barbara; do
    curl --silent --show-error --fail --max-time 5 "http://$KILN_SERVER_ADDRESS:8000/hello/$name" | grep -q "$name!"
done
