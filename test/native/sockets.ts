/** Connected descriptors for tests: a socketpair, and both ends of a TCP connection on loopback taken from Node. */
import { once } from 'node:events';
import { closeSync, fstatSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect, createServer, type Socket } from 'node:net';
import { takeDescriptor } from '../../src/native/index.ts';

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;

/** Blocking, as the kernel makes them. */
export function socketPair(): [number, number] {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const fds = new Int32Array(2);
  const socketpair = koffi.load('libc.so.6').func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)');
  if (socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, fds) !== 0) throw new Error('socketpair');
  return [fds[0]!, fds[1]!];
}

/** Non-blocking, as libuv makes them. */
export async function tcpPair(): Promise<[number, number]> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = connect({ port, host: '127.0.0.1' });
  client.pause();
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  const pair: [number, number] = [takeDescriptor(client), takeDescriptor(accepted)];
  server.close();
  return pair;
}

export function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) if (isOpen(fd)) closeSync(fd);
}

/** Exactly `length` bytes from a blocking descriptor. */
export function receiveAll(fd: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let have = 0; have < length; ) {
    const count = readSync(fd, bytes, have, length - have, null);
    if (count === 0) throw new Error(`the peer ended after ${have} of ${length} bytes`);
    have += count;
  }
  return bytes;
}
