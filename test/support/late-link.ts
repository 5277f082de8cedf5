/**
 * A link on which one multifd channel is late: what comes on it is held back until the test lets it go, and everything else passes. Its START, the
 * initial packet and the first SYNC, is on time.
 */
import { once } from 'node:events';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import type { Address } from '../../src/transport/index.ts';
import { MULTIFD_FLAG, MULTIFD_MAGIC } from '../../src/wire/index.ts';

const INITIAL_BYTES = 64;
const HEADER_BYTES = 1344;
const PAGE = 4096;

export interface LateLink {
  readonly address: Address;
  /** Pages of the first round that are held back; undefined as long as the SYNC behind them is not. Only for channels without compression. */
  readonly heldPages: number | undefined;
  /** Passes on what is held and all that comes. */
  release(): void;
  close(): Promise<void>;
}

export async function lateLink(target: Address & { kind: 'tcp' }, lateChannel: number): Promise<LateLink> {
  const sockets = new Set<Socket>();
  const held: Buffer[] = [];
  let late: { readonly to: Socket; punctual: number } | undefined;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = netConnect({ host: target.host, port: target.port, allowHalfOpen: true });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {
        client.destroy();
        upstream.destroy();
      });
    }
    upstream.pipe(client);
    client.once('data', (first: Buffer) => {
      // A source sends the initial packet first and alone.
      if (channelOf(first) === lateChannel) late = { to: upstream, punctual: INITIAL_BYTES + HEADER_BYTES };
    });
    client.on('data', (bytes: Buffer) => {
      const count = late?.to === upstream ? Math.min(late.punctual, bytes.length) : bytes.length;
      if (late?.to === upstream) late.punctual -= count;
      upstream.write(bytes.subarray(0, count));
      if (count < bytes.length) held.push(bytes.subarray(count));
    });
    client.on('end', () => {
      if (held.length === 0) upstream.end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    address: { kind: 'tcp', host: '127.0.0.1', port },
    get heldPages() {
      return pagesBeforeSync(Buffer.concat(held));
    },
    release() {
      for (const bytes of held.splice(0)) late?.to.write(bytes);
      if (late !== undefined) late.punctual = Number.POSITIVE_INFINITY;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** By the initial packet; -1 for main. */
function channelOf(first: Buffer): number {
  return first.length >= INITIAL_BYTES && first.readUInt32BE(0) === MULTIFD_MAGIC ? first[24]! : -1;
}

function pagesBeforeSync(packets: Buffer): number | undefined {
  for (let at = 0, pages = 0; ; ) {
    if (at + HEADER_BYTES > packets.length) return undefined;
    if ((packets.readUInt32BE(at + 8) & MULTIFD_FLAG.SYNC) !== 0) return pages;
    const normal = packets.readUInt32BE(at + 16);
    pages += normal;
    at += HEADER_BYTES + normal * PAGE;
  }
}
