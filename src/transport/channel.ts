import type { IoVector } from '../native/index.ts';
import type { Connection } from './connection.ts';

/**
 * How bytes travel. Every transport gives the engine the same thing: a `Channel`.
 *
 * Reading: the transport fills large buffers of its own; `read` hands them over one after another. A chunk is valid until the
 * next call of `read` or `tryRead`, and the `headroom` bytes before it (in the same ArrayBuffer) are the reader's to scribble
 * in, so that the unread tail of one chunk can be moved in front of the next and the decoder sees contiguous bytes.
 * Writing: `write` takes a buffer that must not change until the promise settles; several writes may be under way,
 * they leave in order.
 */
export interface Channel {
  /** For people and errors: role and address, e.g. `main tcp:127.0.0.1:4444`. */
  readonly label: string;
  /** False for a channel that can only send (file for writing) or only receive. */
  readonly readable: boolean;
  readonly writable: boolean;
  /** True if the two directions join the same peer, so a return path is possible. */
  readonly duplex: boolean;

  /** The next chunk, or null at the orderly end of the peer's bytes. Throws TransportError (reset, i/o error, closed here). */
  read(): Promise<Chunk | null>;
  /** Like `read` if something is there already, else undefined: never waits. */
  tryRead(): Chunk | null | undefined;
  /** Resolves when the kernel (or the file) has taken all of `bytes`. Throws TransportError. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Half-close: no more bytes from here, the peer reads an orderly end; reading goes on. A file is on the disk when it resolves; a command
   * (exec:) has exited, and one that failed is TRANSPORT_EXEC: who also waits for what the command says must not await this first.
   */
  end(): Promise<void>;
  /** Ends both directions at once; waiting reads and writes throw TRANSPORT_CLOSED with `reason`. Idempotent, never throws. */
  destroy(reason?: Error): void;
  /** Settles when everything this channel owns (descriptor, child process) is gone. Never throws. */
  readonly closed: Promise<void>;
  readonly counters: Readonly<ChannelCounters>;
  /**
   * From now on single small pieces count more than throughput: what arrives is acknowledged at once, and in front of what is written next no more
   * waits in the kernel than the network needs not to run dry. Only tcp has such ways; elsewhere, and without FFI, nothing changes.
   */
  favourLatency?(): void;
  /** Bytes that the kernel has taken and the peer's kernel has not; 0 where that cannot be told. */
  inKernel?(): number;
  /** Transfers between the kernel and memory without a copy in between, where the channel is a socket and the system lets us. */
  readonly direct?: DirectTransfer | undefined;
}

/** Both do what can be done at once and never wait; what went wrong is told by the next `write` or `read`. */
export interface DirectTransfer {
  /** Sends from the list and consumes what the kernel took. Only while no `write` is under way. */
  send(vector: IoVector): number;
  /** Fills the list with what is there. Only when `tryRead` has just said undefined. */
  receive(vector: IoVector): number;
}

/** `bytes.subarray(start, end)` are the new bytes; `bytes.subarray(start - headroom, start)` is scratch. */
export interface Chunk {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

export interface ChannelCounters {
  bytesRead: number;
  bytesWritten: number;
  reads: number;
  writes: number;
}

/** Scratch room in front of each chunk, bytes: more than the longest page record (8 + 1 + 255 + 65536 would be 64 KiB pages; x86: 4360). */
export const CHUNK_HEADROOM = 8 * 1024;

/** Waits for one peer after another. */
export interface Listener {
  /** The address peers can connect to, with the real port if 0 was asked for. */
  readonly address: Address;
  /** Next peer. Throws TransportError when closed or when `signal` aborts. */
  accept(signal?: AbortSignal): Promise<Channel>;
  /** Next peer, before anybody reads what it says. Throws as `accept`; TRANSPORT_ADDRESS where only one can come (fd:, exec:, file:). */
  next(signal?: AbortSignal): Promise<Connection>;
  /** Peers that were turned away because they are not who they should be, and why the last one was. Only with TLS. */
  readonly refusals?: { readonly count: number; readonly last: string };
  close(): void;
}

/** A migration URI, parsed. The text forms are QEMU's: tcp:HOST:PORT, tcp:[::1]:PORT, unix:PATH, fd:N, exec:COMMAND, file:PATH[,offset=N]. */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'fd'; readonly fd: number }
  | { readonly kind: 'exec'; readonly command: readonly string[] }
  | { readonly kind: 'file'; readonly path: string; readonly offset: number };
