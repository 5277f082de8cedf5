#!/bin/busybox sh
# First process of the Linux guest: checks its own memory, disk and network for ever and says so on the console.
#
#   FILLED mb=M workers=W        once, when the work files are written
#   TICK w n OK uptime           one line a round and worker; worker 0 adds disk=ok|none net=up|down|none
#   TICK w n CORRUPT what
#
# One worker per CPU, each with its share of ferrymb=M MiB (kernel command line) in a tmpfs: a round verifies the checksum of every
# file and rewrites one of them. Worker 0 also rewrites and rereads the first virtio disk and pings the gateway of QEMU's user network.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /pages
mount -t tmpfs -o size=90% tmpfs /pages
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order

total=$(sed -n 's/.*ferrymb=\([0-9]*\).*/\1/p' /proc/cmdline)
total=${total:-16}
workers=$(nproc)
files=$((total / workers))

disk=none
[ -b /dev/vda ] && disk=ok
net=none
if [ -d /sys/class/net/eth0 ]; then
  ifconfig lo 127.0.0.1 up
  ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
  net=down
fi

random() { dd if=/dev/urandom of="$1" bs="$2" count=1 conv=notrunc 2>/dev/null; }

try_disk() {
  random /tmp/block 64k
  dd if=/tmp/block of=/dev/vda bs=64k seek=$(($1 % 16)) conv=notrunc,fsync 2>/dev/null
  echo 1 > /proc/sys/vm/drop_caches
  dd if=/dev/vda of=/tmp/block.read bs=64k skip=$(($1 % 16)) count=1 2>/dev/null
  cmp -s /tmp/block /tmp/block.read
}

try_net() { if ping -c 1 -W 2 10.0.2.2 >/dev/null 2>&1; then net=up; else net=down; fi; }

tick() { # WORKER
  cd "/pages/$1" || exit
  n=0
  while true; do
    broken=
    cat sum.* | md5sum -c >/tmp/check.$1 2>&1 || broken="memory $(grep -v OK /tmp/check.$1 | tr '\n' ' ')"
    if [ "$1" = 0 ]; then
      [ $disk = none ] || try_disk $n || broken="$broken disk"
      [ $net = none ] || try_net
    fi
    if [ -z "$broken" ]; then
      devices=
      [ "$1" = 0 ] && devices=" disk=$disk net=$net"
      echo "TICK $1 $n OK $(cut -d' ' -f1 /proc/uptime)$devices"
    else
      echo "TICK $1 $n CORRUPT $broken"
    fi
    i=$((n % files))
    random file.$i 1M
    md5sum file.$i > sum.$i
    n=$((n + 1))
  done
}

w=0
while [ $w -lt $workers ]; do
  mkdir /pages/$w
  cd /pages/$w || exit
  i=0
  while [ $i -lt $files ]; do
    random file.$i 1M
    md5sum file.$i > sum.$i
    i=$((i + 1))
  done
  w=$((w + 1))
done
echo "FILLED mb=$((files * workers)) workers=$workers"
w=1
while [ $w -lt $workers ]; do
  tick $w &
  w=$((w + 1))
done
tick 0
