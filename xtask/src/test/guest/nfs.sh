#!/bin/sh
# A real NFS server (the kernel's, with Debian's programs) for the tests of shared directories, whose files belong to user 900. `stop` and `start` are what the tests call when the server is to be away and back.
set -e
case "${1:-test}" in
start)
    rpc.nfsd 4
    ;;
stop)
    rpc.nfsd 0
    ;;
test)
    for module in nfsd nfs nfsv3 nfsv4; do modprobe $module; done
    mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /srv/nfs /run/rpcbind
    ln -s /run /var/run
    touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
    mount -t nfsd nfsd /proc/fs/nfsd
    mkdir /srv/nfs/uploads /srv/nfs/plain
    chown 900:900 /srv/nfs/uploads /srv/nfs/plain
    {
        echo '/srv/nfs/uploads 127.0.0.1(rw,sync,no_subtree_check,insecure,all_squash,anonuid=900,anongid=900,fsid=1)'
        echo '/srv/nfs/plain 127.0.0.1(rw,sync,no_subtree_check,insecure,fsid=2)'
    } >/etc/exports
    # A server that starts lets nobody open files for 90 s, so that clients of before can come back first: here, 10 s.
    echo 10 >/proc/fs/nfsd/nfsv4leasetime
    echo 10 >/proc/fs/nfsd/nfsv4gracetime
    # The user that Debian's package makes for it.
    grep -q ^_rpc: /etc/passwd || echo '_rpc:x:106:65534::/run/rpcbind:/bin/false' >>/etc/passwd
    rpcbind
    i=0
    until [ -S /run/rpcbind.sock ] || [ $i -ge 50 ]; do i=$((i + 1)); sleep 0.2; done
    exportfs -a
    rpc.nfsd 4
    rpc.mountd
    sleep 12
    /guest/servers --ignored --test-threads 1 root_nfs
    ;;
esac
