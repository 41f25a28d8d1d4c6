#!/bin/sh
# Each check ends with a line `CHECK name code`.
check() {
    name=$1
    shift
    "$@" 2>&1
    echo "CHECK $name $?"
}

kiln() {
    /guest/kiln --state /guest/state "$@"
}

served() {
    wget -q -O - http://127.0.0.1:8080/ | grep "$1"
}

limited() {
    # 128 MiB, as the fleet says.
    cat /sys/fs/cgroup/kiln/*/slot-*/memory.max | grep -x 134217728
}

clean() {
    ! grep -e kiln -e composefs /proc/mounts && ! ls /sys/fs/cgroup/kiln/*/slot-* 2>/dev/null && ! ip link | grep kiln
}

# One at a time: each counts on being alone in its process.
check servers /guest/servers --test-threads 1
check sandbox /guest/sandbox --test-threads 1
check nfs /guest/nfs.sh
check doctor kiln doctor
# An emulated processor is slow, and slower beside others.
sed -i 's/within = "[0-9]*s"/within = "2m"/' /guest/hello/image.toml
sed -i 's/progress_deadline = .*/progress_deadline = "10m"/' /guest/hello/fleet.toml
check up kiln up /guest/hello
check served served 'Hello from Kiln'
check limited limited
sed -i 's/Hello from Kiln/Hello from Kiln, again/' /guest/hello/page/index.html
check again kiln up /guest/hello
check replaced served 'Hello from Kiln, again'
check status kiln status
check down kiln down --purge
check clean clean
echo DONE
