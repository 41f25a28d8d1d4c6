#!/bin/sh
# Run outside of the server, without rights, with $KILN_SERVER_ADDRESS set.
set -e
at="http://$KILN_SERVER_ADDRESS:8000"
curl --silent --fail --data 'I was here & <b>liked</b> it' "$at/entries" | grep -q '"entry": [0-9]'
curl --silent --fail "$at/" | grep -qF '<li>I was here &amp; &lt;b&gt;liked&lt;/b&gt; it</li>'
test "$(curl --silent --output /dev/null --write-out '%{http_code}' --data "$(head -c 2000 /dev/zero | tr '\0' x)" "$at/entries")" = 400
