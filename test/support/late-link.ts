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
/** The initial packet and the first SYNC. */
const START_BYTES = INITIAL_BYTES + HEADER_BYTES;

export interface LateLink {
  readonly address: Address;
  /**
   * Pages that may be taken while the late channel is: those of all others before the point where they wait for it. Undefined as long as they have not
   * all come to it. Only for channels without compression.
   */
  readonly punctualPages: number | undefined;
  /** Passes on what is held and all that comes. */
  release(): void;
  close(): Promise<void>;
}

export async function lateLink(
  target: Address & { kind: 'tcp' },
  channels: number,
  lateChannel: number,
): Promise<LateLink> {
  const sockets = new Set<Socket>();
  const punctual: FirstPages[] = [];
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
      const channel = channelOf(first);
      if (channel === lateChannel) late = { to: upstream, punctual: START_BYTES };
      else if (channel >= 0) {
        const pages = new FirstPages();
        punctual.push(pages);
        pages.take(first);
        client.on('data', (bytes: Buffer) => pages.take(bytes));
      }
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
    get punctualPages() {
      if (punctual.length < channels - 1 || punctual.some(({ complete }) => !complete)) return undefined;
      return punctual.reduce((sum, { count }) => sum + count, 0);
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

/** Of one channel, between the SYNC of its START and the next one. */
class FirstPages {
  count = 0;
  /** The SYNC behind them has come. */
  complete = false;
  #skip = START_BYTES;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #have = 0;

  take(bytes: Buffer): void {
    for (let at = 0; at < bytes.length && !this.complete; ) {
      const skipped = Math.min(this.#skip, bytes.length - at);
      this.#skip -= skipped;
      at += skipped;
      const copied = bytes.copy(this.#header, this.#have, at);
      this.#have += copied;
      at += copied;
      if (this.#have === HEADER_BYTES) this.#packet();
    }
  }

  #packet(): void {
    const normal = this.#header.readUInt32BE(16);
    this.count += normal;
    this.complete = (this.#header.readUInt32BE(8) & MULTIFD_FLAG.SYNC) !== 0;
    this.#skip = normal * PAGE;
    this.#have = 0;
  }
}
