import { asError, FerryError } from '../../src/base/index.ts';
import {
  type Channel,
  type ChannelCounters,
  type Chunk,
  ReadRing,
  type TransportFault,
} from '../../src/transport/index.ts';

export interface MemoryCut {
  /** Bytes that still pass in a direction; the link dies, both ways, in front of the next one. */
  readonly aToB?: number;
  readonly bToA?: number;
  /** How readers see it: an orderly end, or a reset. Writers always see a reset. */
  readonly how: 'end' | 'reset';
}

const SLOT_BYTES = 64 * 1024;
const SLOTS = 4;

/** Two joined channels in this process, with real back pressure; optionally cut at a byte. */
export function memoryPair(
  options: { readonly cutAfter?: MemoryCut; readonly name?: string } = {},
): [Channel, Channel] {
  const { cutAfter, name = 'memory' } = options;
  const a = new MemoryChannel(`main ${name}:a`, cutAfter?.aToB ?? Number.POSITIVE_INFINITY, cutAfter?.how ?? 'reset');
  const b = new MemoryChannel(`main ${name}:b`, cutAfter?.bToA ?? Number.POSITIVE_INFINITY, cutAfter?.how ?? 'reset');
  a.peer = b;
  b.peer = a;
  return [a, b];
}

interface PendingWrite {
  readonly bytes: Uint8Array;
  done: number;
  resolve(): void;
  reject(error: Error): void;
}

class MemoryChannel implements Channel {
  readonly label: string;
  readonly readable = true;
  readonly writable = true;
  readonly duplex = true;
  readonly closed: Promise<void>;
  readonly counters: ChannelCounters = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  peer: MemoryChannel | undefined;
  readonly #ring = new ReadRing(SLOT_BYTES, SLOTS);
  readonly #pending: PendingWrite[] = [];
  readonly #how: 'end' | 'reset';
  #left: number;
  #ending = false;
  #failure: Error | undefined;
  #resolveClosed: () => void = () => {};

  constructor(label: string, left: number, how: 'end' | 'reset') {
    this.label = label;
    this.#left = left;
    this.#how = how;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#ring.onRoom = () => this.peer?.push();
  }

  read(): Promise<Chunk | null> {
    return this.#ring.read();
  }

  tryRead(): Chunk | null | undefined {
    return this.#ring.tryRead();
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#pending.push({ bytes, done: 0, resolve, reject });
      this.push();
    });
  }

  async end(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#ending = true;
    this.push();
  }

  destroy(reason?: Error): void {
    const error = this.#fault('TRANSPORT_CLOSED', 'closed here', reason);
    this.#ring.abort(this.#failure ?? error);
    this.#die(error);
    this.peer?.lost('end');
  }

  /** Moves what waits into the peer's ring, as far as there is room. */
  push(): void {
    const peer = this.peer;
    if (peer === undefined || this.#failure !== undefined) return;
    const to = peer.#ring;
    for (let write = this.#pending[0]; write !== undefined && !to.full; write = this.#pending[0]) {
      const count = Math.min(to.space.length, write.bytes.length - write.done, this.#left);
      if (count > 0) {
        to.space.set(write.bytes.subarray(write.done, write.done + count));
        write.done += count;
        this.#left -= count;
        this.counters.bytesWritten += count;
        peer.counters.bytesRead += count;
        peer.counters.reads++;
        to.commit(count);
      }
      if (write.done === write.bytes.length) {
        this.#pending.shift();
        this.counters.writes++;
        write.resolve();
      }
      if (this.#left === 0) {
        this.#cut();
        return;
      }
    }
    if (this.#ending && this.#pending.length === 0) to.finish();
  }

  /** The other side, or the link, is gone. */
  lost(how: 'end' | 'reset'): void {
    const error = this.#fault('TRANSPORT_RESET', 'connection lost (EPIPE)');
    this.#ring.finish(how === 'reset' ? error : undefined);
    this.#die(error);
  }

  #cut(): void {
    const how = this.#how;
    this.peer?.lost(how);
    this.lost(how);
  }

  #die(error: Error): void {
    this.#failure ??= error;
    for (const write of this.#pending.splice(0)) write.reject(this.#failure);
    this.#resolveClosed();
  }

  #fault(code: 'TRANSPORT_CLOSED' | 'TRANSPORT_RESET', what: string, reason?: unknown): FerryError<TransportFault> {
    const { bytesRead, bytesWritten } = this.counters;
    const at = { channel: this.label, bytesRead, bytesWritten };
    const fault = code === 'TRANSPORT_RESET' ? { code, ...at, errno: 'EPIPE' } : { code, ...at };
    const cause = reason === undefined ? undefined : asError(reason);
    return new FerryError<TransportFault>(
      fault,
      `${this.label}: ${what} after ${bytesRead} bytes read, ${bytesWritten} written`,
      cause,
    );
  }
}
