/**
 * A channel over net.Socket: tcp, unix, descriptors of sockets and pipes, and the two pipes of a command.
 *
 * Reading goes through `onread` into the ring's own buffers: no stream machinery, no allocation. The callback's microtasks run
 * before libuv reads on, so a reader that waits in `read` keeps the ring empty and reading never stops.
 */
import type { Socket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { asError, assert } from '../base/index.ts';
import {
  acknowledgeNow,
  bytesInKernel,
  canVector,
  type IoVector,
  limitUnsent,
  takeDescriptor,
} from '../native/index.ts';
import type { Channel, ChannelCounters, Chunk, DirectTransfer } from './channel.ts';
import { type ChannelPosition, channelFailure, closedHere, type TransportError } from './errors.ts';
import { errorBehindEnd } from './handle.ts';
import type { SocketRing } from './socket-ring.ts';

/** Wake-ups after a direct transfer that are expected to be followed by another. */
const WAKE_CREDIT = 4;

/** With latency favoured: what may wait unsent in the kernel, bytes. The network must not run dry before the next write comes. */
const UNSENT_BYTES = 128 * 1024;

/** Linux. */
const EAGAIN = 11;

/** What lives and dies with a channel beside its sockets: the child process of exec:. */
export interface Companion {
  /** Resolves when it ended well; rejects with a TransportError otherwise. */
  readonly finished: Promise<void>;
  /** Ends it at once, with what it started; `pipesOpen`: processes of it may live on although the first has exited. */
  kill(pipesOpen: boolean): void;
}

export interface SocketEnds {
  /** Socket to read from, made with `ring.socketOptions`; may be the same as `output`. */
  readonly input?: Socket | undefined;
  readonly output?: Socket | undefined;
  readonly ring: SocketRing;
  readonly companion?: Companion | undefined;
}

/** How long a command that has closed its pipe may take to exit and so to say whether it failed, ms. */
const VERDICT_MS = 250;

/** Rejects if the command has failed. One that has not exited by then is taken to be well: it may wait for our end of the other pipe. */
async function verdict(companion: Companion): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, VERDICT_MS);
  });
  await Promise.race([companion.finished, patience]).finally(() => clearTimeout(timer));
}

export class SocketChannel implements Channel {
  readonly label: string;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly duplex: boolean;
  readonly closed: Promise<void>;
  readonly direct: DirectTransfer | undefined;
  readonly #ring: SocketRing;
  readonly #input: Socket | undefined;
  readonly #output: Socket | undefined;
  readonly #companion: Companion | undefined;
  #bytesWritten = 0;
  #writes = 0;
  /** What a direct transfer ran into. */
  #lost: Error | undefined;
  /** Why writing is over, once it is. */
  #failure: TransportError | undefined;

  constructor(label: string, ends: SocketEnds) {
    this.label = label;
    this.#ring = ends.ring;
    this.#input = ends.input;
    this.#output = ends.output;
    this.#companion = ends.companion;
    this.readable = ends.input !== undefined;
    this.writable = ends.output !== undefined;
    this.duplex = this.readable && this.writable;
    this.direct = canVector()
      ? { send: (vector) => this.#send(vector), receive: (vector) => this.#receive(vector) }
      : undefined;
    const sockets = [...new Set([ends.input, ends.output])].filter((socket) => socket !== undefined);
    for (const socket of sockets) {
      socket.on('error', (error) => {
        // With a command behind it the failed write itself finds out why.
        if (socket === ends.input || ends.companion === undefined) this.#fail(error, socket === ends.input);
      });
    }
    const ended = sockets.map((socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())));
    this.closed = Promise.all([...ended, ends.companion?.finished.catch(() => {})]).then(() => {});
    this.#startReading();
  }

  get counters(): Readonly<ChannelCounters> {
    const { bytesRead, reads } = this.#ring;
    return { bytesRead, bytesWritten: this.#bytesWritten, reads, writes: this.#writes };
  }

  read(): Promise<Chunk | null> {
    return this.#ring.read();
  }

  tryRead(): Chunk | null | undefined {
    return this.#ring.tryRead();
  }

  write(bytes: Uint8Array): Promise<void> {
    const output = this.#output;
    if (output === undefined || this.#failure !== undefined)
      return Promise.reject(this.#failure ?? closedHere(this.#position(), new Error('a channel only for reading')));
    return new Promise((resolve, reject) => {
      output.write(bytes, (error) => {
        // A write that its socket's end overtook is called back without an error.
        if (error || output.destroyed) {
          this.#explain(error ?? output.errored ?? new Error('the socket is closed')).then(reject);
          return;
        }
        this.#bytesWritten += bytes.length;
        this.#writes++;
        resolve();
      });
    });
  }

  #send(vector: IoVector): number {
    if (this.#failure !== undefined) return 0;
    const sent = vector.writeTo(descriptorOf(this.#output));
    this.#note(vector.errno);
    this.#bytesWritten += sent;
    if (sent > 0) this.#writes++;
    return sent;
  }

  #receive(vector: IoVector): number {
    if (this.#failure !== undefined) return 0;
    const received = vector.readFrom(descriptorOf(this.#input));
    this.#note(vector.errno);
    this.#ring.bytesRead += received;
    if (received > 0) this.#ring.reads++;
    this.#ring.wakeUps = WAKE_CREDIT;
    return received;
  }

  /** An error of a direct transfer. The kernel has told it and forgets it: what libuv will see is an end. */
  #note(errno: number): void {
    if (errno === 0 || errno === EAGAIN) return;
    const code = getSystemErrorName(-errno);
    this.#lost ??= Object.assign(new Error(code), { code });
  }

  async end(): Promise<void> {
    const output = this.#output;
    if (this.#failure !== undefined) throw this.#failure;
    if (output !== undefined) {
      await new Promise<void>((resolve, reject) => {
        output.once('close', () => reject(this.#failure ?? closedHere(this.#position())));
        output.end(() => resolve());
      });
    }
    await this.#companion?.finished;
  }

  /**
   * Gives the connection away: its descriptor, for a thread. What has been read and not been asked for goes to `rest`. The channel is closed.
   * Throws TransportError if the connection has failed, NATIVE_UNAVAILABLE, NATIVE_CALL.
   */
  takeDescriptor(rest: (bytes: Buffer) => void): number {
    const input = this.#input;
    assert(input !== undefined && input === this.#output, 'only a socket is one descriptor');
    this.#ring.onRoom = () => {};
    input.pause();
    for (let chunk = this.#ring.tryRead(); chunk != null; chunk = this.#ring.tryRead()) {
      rest(chunk.bytes.subarray(chunk.start, chunk.end));
    }
    const fd = takeDescriptor(input);
    this.destroy();
    return fd;
  }

  favourLatency(): void {
    const fd = descriptorOf(this.#input);
    // Not a tcp socket: neither option exists.
    if (!limitUnsent(fd, UNSENT_BYTES) || !acknowledgeNow(fd)) return;
    this.#ring.onRead = () => acknowledgeNow(descriptorOf(this.#input));
  }

  inKernel(): number {
    return Math.max(0, bytesInKernel(descriptorOf(this.#output)));
  }

  destroy(reason?: Error): void {
    this.#failure ??= closedHere(this.#position(), reason);
    this.#ring.abort(this.#failure);
    this.#companion?.kill(this.#input?.readableEnded === false);
    this.#input?.destroy();
    this.#output?.destroy();
  }

  #startReading(): void {
    const input = this.#input;
    if (input === undefined) {
      this.#ring.finish(closedHere(this.#position(), new Error('a channel only for writing')));
      return;
    }
    const companion = this.#companion;
    input.once('end', () => {
      const error = errorBehindEnd(input) ?? this.#lost;
      if (error !== undefined) this.#fail(error, true);
      else if (companion === undefined) this.#ring.finish();
      else
        verdict(companion).then(
          () => this.#ring.finish(),
          (error) => this.#ring.finish(asError(error)),
        );
    });
    this.#ring.onRoom = () => input.resume();
    input.resume();
  }

  /** The error of a failed write: that a command exited with status 3 says more than that its pipe broke. */
  async #explain(error: Error): Promise<TransportError> {
    if (this.#companion !== undefined && this.#failure === undefined)
      await verdict(this.#companion).catch((failed) => this.#fail(asError(failed), false));
    return this.#fail(error, false);
  }

  /** The first cause of a failure is the one that every later call reports. */
  #fail(error: Error, reading: boolean): TransportError {
    this.#failure ??= channelFailure(this.#position(), error);
    if (reading || this.#input === this.#output) this.#ring.finish(this.#failure);
    return this.#failure;
  }

  #position(): ChannelPosition {
    return { channel: this.label, bytesRead: this.#ring.bytesRead, bytesWritten: this.#bytesWritten };
  }
}

/** The descriptor that a socket owns now; -1 once it is closed: its number may belong to another file by then. */
function descriptorOf(socket: Socket | undefined): number {
  if (socket === undefined || socket.destroyed) return -1;
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd?: number } | null };
  return handle?.fd ?? -1;
}
