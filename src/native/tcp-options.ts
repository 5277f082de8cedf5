/**
 * What Node.js does not offer of a TCP socket. All of it only makes things faster: where it cannot be had (no FFI, another kind of socket, a
 * socket that is closed) nothing happens.
 */
import { libc } from './libc.ts';

/** Linux: netinet/tcp.h, linux/sockios.h. */
const IPPROTO_TCP = 6;
const TCP_QUICKACK = 12;
const TCP_NOTSENT_LOWAT = 25;
const SIOCOUTQ = 0x5411;

const value = Buffer.from(new ArrayBuffer(4));

/**
 * What has arrived is acknowledged now, and not when there is something to send or 40 ms have passed. A peer with Nagle's algorithm on (a QEMU
 * that asks for pages) sends its next small message only then. The kernel forgets it: to be said after each read. False: not done.
 */
export function acknowledgeNow(fd: number): boolean {
  return setOption(fd, TCP_QUICKACK, 1);
}

/** At most about so many bytes wait in the kernel that the network has not been given; a write of more waits. False: not done. */
export function limitUnsent(fd: number, byteCount: number): boolean {
  return setOption(fd, TCP_NOTSENT_LOWAT, byteCount);
}

/** Bytes in the kernel that the peer has not acknowledged; -1 if that cannot be told. */
export function bytesInKernel(fd: number): number {
  const c = libc();
  if (c === null || c.ioctl(fd, SIOCOUTQ, 'uintptr_t', c.address(value)) !== 0) return -1;
  return value.readInt32LE(0);
}

function setOption(fd: number, name: number, to: number): boolean {
  const c = libc();
  if (c === null) return false;
  value.writeInt32LE(to, 0);
  return c.setsockopt(fd, IPPROTO_TCP, name, c.address(value), value.length) === 0;
}
