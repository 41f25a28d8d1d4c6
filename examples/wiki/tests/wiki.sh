#!/bin/sh
# Run outside of the server, without rights, with $KILN_SERVER_ADDRESS set.
set -e
at="http://$KILN_SERVER_ADDRESS:8000"
put() {
    curl --silent --output /dev/null --write-out '%{http_code}' --request PUT --data-binary "$1" "$at/$2"
}
test "$(put 'Servers are <b>replaced</b>, never modified.' pages/Kiln)" = 201
test "$(put 'Bread is baked.' pages/Bread)" = 201
curl --silent --fail "$at/pages/Kiln" | grep -qF 'are &lt;b&gt;replaced&lt;/b&gt;, never'
test "$(curl --silent --fail "$at/search?q=replaced")" = '["Kiln"]'
test "$(put 'Servers are kept.' pages/Kiln)" = 201
test "$(curl --silent --fail "$at/search?q=replaced")" = '[]'
test "$(put attached files/note.txt)" = 201
test "$(curl --silent --fail "$at/files/note.txt")" = attached
test "$(put x files/..%2Fnote)" = 400
test "$(put x files/.note)" = 400
test "$(curl --silent --output /dev/null --write-out '%{http_code}' "$at/files/missing")" = 404
