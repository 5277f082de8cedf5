/**
 * A file as a channel: written from an offset on, or read from one. One operation at a time, in the thread pool, on large
 * buffers. The descriptor is closed only when no operation uses it: a number closed too early may name another file by then.
 */
import { close, constants, fstat, fsync, ftruncate, open, read, type Stats, write } from 'node:fs';
import { promisify } from 'node:util';
import { asError } from '../base/index.ts';
import type { Address, Channel, ChannelCounters, Chunk } from './channel.ts';
import { badAddress, channelFailure, closedHere, refused, type TransportError } from './errors.ts';
import { ReadRing } from './read-ring.ts';

const READ_SLOT_BYTES = 1024 * 1024;
const READ_SLOTS = 3;

const openFd = promisify(open);
const statFd = promisify(fstat);
const syncFd = promisify(fsync);
const truncateFd = promisify(ftruncate);
const closeFd = promisify(close);

/** `undefined` as position: where the descriptor stands (fd: of a file). */
interface FileEnd {
  readonly fd: number;
  readonly position: number | undefined;
  readonly direction: 'read' | 'write';
  readonly regular: boolean;
}

export class FileChannel implements Channel {
  readonly label: string;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly duplex = false;
  readonly closed: Promise<void>;
  readonly #end: FileEnd;
  readonly #ring: ReadRing | undefined;
  readonly #counters: ChannelCounters = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  #failure: TransportError | undefined;
  /** The last operation queued; every operation starts after the one before it. */
  #tail: Promise<void> = Promise.resolve();
  #resolveClosed: () => void = () => {};
  #closing = false;

  constructor(label: string, end: FileEnd) {
    this.label = label;
    this.#end = end;
    this.readable = end.direction === 'read';
    this.writable = end.direction === 'write';
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    if (!this.readable) return;
    this.#ring = new ReadRing(READ_SLOT_BYTES, READ_SLOTS);
    this.#ring.onRoom = () => this.#fill();
    this.#fill();
  }

  get counters(): Readonly<ChannelCounters> {
    return this.#counters;
  }

  async read(): Promise<Chunk | null> {
    if (this.#ring === undefined) throw closedHere(this.#position(), new Error('a file only for writing'));
    return this.#ring.read();
  }

  tryRead(): Chunk | null | undefined {
    if (this.#ring === undefined) throw closedHere(this.#position(), new Error('a file only for writing'));
    return this.#ring.tryRead();
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.readable) return Promise.reject(closedHere(this.#position(), new Error('a file only for reading')));
    return this.#enqueue(() => this.#writeAll(bytes));
  }

  /** Writing: resolves when the bytes are on the disk (fsync); the descriptor is closed then. */
  end(): Promise<void> {
    if (this.readable) return Promise.resolve();
    return this.#enqueue(async () => {
      if (this.#end.regular) await syncFd(this.#end.fd);
      this.#close();
    });
  }

  destroy(reason?: Error): void {
    this.#failure ??= closedHere(this.#position(), reason);
    this.#ring?.abort(this.#failure);
    this.#close();
  }

  #fill(): void {
    const ring = this.#ring;
    if (ring === undefined) return;
    this.#enqueue(async () => {
      for (;;) {
        const count = await this.#readSome(ring.space);
        if (this.#failure !== undefined) return;
        if (count === 0) {
          ring.finish();
          return;
        }
        if (!ring.commit(count)) return;
      }
    }).catch((error) => ring.finish(asError(error)));
  }

  /** Runs `operation` after all earlier ones, unless the channel has failed by then. */
  #enqueue(operation: () => Promise<void>): Promise<void> {
    const run = this.#tail.then(async () => {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        await operation();
      } catch (error) {
        this.#failure ??= channelFailure(this.#position(), error);
        throw this.#failure;
      }
      if (this.#failure !== undefined) throw this.#failure;
    });
    this.#tail = run.catch(() => {});
    return run;
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const at = this.#end.position === undefined ? null : this.#end.position + this.#counters.bytesWritten;
      const count = await new Promise<number>((resolve, reject) => {
        write(this.#end.fd, bytes, done, bytes.length - done, at, (error, written) =>
          error ? reject(error) : resolve(written),
        );
      });
      this.#counters.bytesWritten += count;
      this.#counters.writes++;
      done += count;
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  async #readSome(space: Buffer): Promise<number> {
    const at = this.#end.position === undefined ? null : this.#end.position + this.#counters.bytesRead;
    const count = await new Promise<number>((resolve, reject) => {
      read(this.#end.fd, space, 0, space.length, at, (error, got) => (error ? reject(error) : resolve(got)));
    });
    this.#counters.bytesRead += count;
    this.#counters.reads++;
    return count;
  }

  #close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#tail
      .then(() => closeFd(this.#end.fd))
      .catch(() => {})
      .then(this.#resolveClosed);
  }

  #position() {
    return { channel: this.label, bytesRead: this.#counters.bytesRead, bytesWritten: this.#counters.bytesWritten };
  }
}

/**
 * The file of a file: address. Writing cuts it at the offset and keeps the bytes before it, as QEMU does; reading starts there.
 * Throws TRANSPORT_REFUSED, or TRANSPORT_ADDRESS for what is no file (a pipe has fd: and exec:).
 */
export async function openFileChannel(
  address: Address & { kind: 'file' },
  direction: 'read' | 'write',
  label: string,
): Promise<FileChannel> {
  // O_NONBLOCK: a named pipe must not hold us here before it can be refused; files do not mind.
  const flags =
    (direction === 'write' ? constants.O_WRONLY | constants.O_CREAT : constants.O_RDONLY) | constants.O_NONBLOCK;
  let fd: number;
  try {
    fd = await openFd(address.path, flags, 0o600);
  } catch (error) {
    throw refused(label, error, 'cannot open the file');
  }
  try {
    const stats = await statFd(fd);
    requireFile(stats, `file:${address.path}`);
    if (direction === 'write' && stats.isFile()) await truncateFd(fd, address.offset);
    return new FileChannel(label, { fd, position: address.offset, direction, regular: stats.isFile() });
  } catch (error) {
    await closeFd(fd);
    throw refused(label, error, 'cannot prepare the file');
  }
}

/** A descriptor of a file (fd:N): bytes go from or to where it stands. */
export function fileChannelOf(fd: number, regular: boolean, direction: 'read' | 'write', label: string): FileChannel {
  return new FileChannel(label, { fd, position: undefined, direction, regular });
}

function requireFile(stats: Stats, address: string): void {
  if (stats.isFile() || stats.isCharacterDevice() || stats.isBlockDevice()) return;
  throw badAddress(address, 'is neither a file nor a device');
}
