#!/bin/sh
# A real NFS server (the kernel's, with Debian's programs) for the tests of shared directories, on a disk of its own that belongs to
# user 900. `stop` and `start` are what the tests call when the server is to be away and back.
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
    mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /srv/nfs /srv/plain /run
    touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
    mount -t nfsd nfsd /proc/fs/nfsd
    truncate -s 64M /srv/disk && mke2fs -q -F -t ext4 /srv/disk && mount -o loop /srv/disk /srv/nfs
    mkdir /srv/nfs/uploads /srv/nfs/plain
    chown 900:900 /srv/nfs/uploads /srv/nfs/plain
    {
        echo '/srv/nfs/uploads 127.0.0.1(rw,sync,no_subtree_check,insecure,all_squash,anonuid=900,anongid=900,fsid=1)'
        echo '/srv/nfs/plain 127.0.0.1(rw,sync,no_subtree_check,insecure,fsid=2)'
    } >/etc/exports
    # Nothing waits 90 s for clients of an earlier boot.
    echo 1 >/proc/fs/nfsd/nfsv4gracetime 2>/dev/null || true
    echo 1 >/proc/fs/nfsd/nfsv4leasetime 2>/dev/null || true
    rpcbind -w
    exportfs -a
    rpc.nfsd 4
    rpc.mountd
    /guest/servers --ignored --test-threads 1 root_nfs
    ;;
esac
