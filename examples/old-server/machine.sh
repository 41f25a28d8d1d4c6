#!/bin/sh
# A server that nobody dares to touch, as a directory: Debian, and what somebody did to it by hand over the years.
# Stands in for yours, which `kiln survey` reads in its place: sh machine.sh DIR   (as root, with mmdebstrap)
set -eu
machine=$1

mmdebstrap --quiet --variant=minbase --include=nginx-light,cron --format=directory bookworm "$machine"

# 2011: the shop opens.
mkdir -p "$machine/srv/shop"
echo '<h1>The shop, since 2011</h1>' >"$machine/srv/shop/index.html"
cat >"$machine/etc/nginx/conf.d/shop.conf" <<'END'
server {
    listen 8080;
    root /srv/shop;
}
END
# 2014: a busy night.
sed -i 's/worker_connections 768/worker_connections 4096/' "$machine/etc/nginx/nginx.conf"
# 2016: somebody wanted to know.
mkdir -p "$machine/opt/shop"
printf '#!/bin/sh\ngrep -c GET /var/log/nginx/access.log >>/srv/shop/visits\n' >"$machine/opt/shop/visits"
chmod 755 "$machine/opt/shop/visits"
echo '*/5 * * * * root /opt/shop/visits' >"$machine/etc/cron.d/shop"
# 2019: the database is elsewhere now, its password still here.
echo 'DB_PASSWORD=hunter2' >"$machine/etc/default/shop"
