/**
 * Who comes to a destination. Without multifd the first is the source. With it, n + 1 connections come, in whatever order, and each says
 * by its first bytes what it is: QEVM is main (from a QEMU up to 7.2 always the first), 0x11223344 begins the initial packet of a
 * channel (qemu-wire 5.1, 5.2). Whoever says anything else, or nothing, is a stranger and is turned away. With a handshake main comes first, and how many
 * more come is settled with it.
 */
import { asError, Reader } from '../../base/index.ts';
import { closeLine, type Line } from '../../native/index.ts';
import { type SettingsView, WAITS } from '../../settings/index.ts';
import type { Channel, Connection, Listener } from '../../transport/index.ts';
import {
  decodeMultifdInitial,
  HANDSHAKE_MAGIC,
  MULTIFD_INITIAL_BYTES,
  MULTIFD_MAGIC,
  STREAM_MAGIC,
  uuidText,
} from '../../wire/index.ts';
import { inTime, overdue } from '../deadline.ts';
import { MigrationError, mismatch } from '../errors.ts';

/** Where a source is awaited. The migration closes it when nobody else can come. */
export type SourceListener = Pick<Listener, 'accept' | 'next' | 'close' | 'refusals'> & {
  /** Only one connection can come (fd:, exec:, file:). */
  readonly single?: boolean;
};

/** Connections that have not said yet what they are, beyond those that are awaited. */
export const UNKNOWN_MAX = 32;

export interface Arrived {
  readonly main: Channel;
  /** Of the channels by id, each read up to the end of its initial packet. Whoever has this closes them. */
  readonly channels: readonly Line[];
}

export interface ArrivalsOptions {
  readonly listener: SourceListener;
  /** 0: no multifd. With a handshake: as far as is known before it. */
  readonly channels: number;
  /** That the channels must announce, 16 bytes; undefined: any, but all the same. */
  readonly uuid: Uint8Array | undefined;
  readonly settings: SettingsView;
  /** Answers the handshake with which the main channel begins, and tells how many channels come; undefined: there is none. */
  readonly greet?: ((main: Channel) => Promise<number>) | undefined;
  readonly signal: AbortSignal;
}

export class Arrivals {
  readonly #options: ArrivalsOptions;
  /** Channels that come. */
  #count: number;
  #main: Connection | undefined;
  /** The main connection, once the handshake is over. */
  #greeted: Channel | undefined;
  readonly #channels = new Map<number, Connection>();
  /** Of the first channel, or given. */
  #uuid: Uint8Array | undefined;
  readonly #unknown = new Set<Connection>();
  #turnedAway = 0;
  #greets = false;
  #deadline: NodeJS.Timeout | undefined;
  #complete: () => void = () => {};
  #fail: (error: unknown) => void = () => {};

  constructor(options: ArrivalsOptions) {
    this.#options = options;
    this.#count = options.channels;
    this.#uuid = options.uuid;
  }

  /** Who is still awaited, for people. */
  get waitingFor(): string {
    if (this.#greets) return WAITS.hello.what;
    const missing = Array.from({ length: this.#count }, (_, id) => id).filter((id) => !this.#channels.has(id));
    const awaited = [
      ...((this.#main ?? this.#greeted) === undefined ? ['main'] : []),
      ...(missing.length === 0 ? [] : [`multifd ${missing.join(', ')}`]),
    ];
    const strangers = this.#turnedAway === 0 ? '' : `; ${this.#turnedAway} turned away that did not say so`;
    const { count = 0, last = '' } = this.#options.listener.refusals ?? {};
    const refused = count === 0 ? '' : `; ${count} turned away, the last because of: ${last}`;
    return `the source to connect: ${awaited.join(' and ')}${strangers}${refused}`;
  }

  /**
   * Waits as long as nobody has come; then x-arrival-timeout for all others. Throws TransportError; WireError (a channel id that is too high),
   * MIGRATION_MISMATCH, MIGRATION_DEADLINE, and then whoever has come is sent away.
   */
  async all(): Promise<Arrived> {
    const { listener, signal } = this.#options;
    if (this.#count === 0) {
      const main = await listener.accept(signal);
      await this.#greet(main, signal);
      if (this.#count === 0) return { main, channels: [] };
      this.#greeted = main;
      this.#awaitRest();
    }
    const over = new AbortController();
    const all = new Promise<void>((resolve, reject) => {
      this.#complete = resolve;
      this.#fail = reject;
    });
    void this.#accept(AbortSignal.any([signal, over.signal]));
    try {
      await all;
      const lines = this.#lines();
      return { main: this.#greeted ?? this.#main!.channel(), channels: lines };
    } catch (thrown) {
      this.#greeted?.destroy();
      this.#main?.destroy();
      for (const connection of this.#channels.values()) connection.destroy();
      throw thrown;
    } finally {
      over.abort();
      clearTimeout(this.#deadline);
      for (const connection of this.#unknown) connection.destroy();
    }
  }

  async #accept(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        const connection = await this.#options.listener.next(signal);
        if (signal.aborted) connection.destroy();
        else void this.#look(connection);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #look(connection: Connection): Promise<void> {
    if (this.#unknown.size >= this.#count + UNKNOWN_MAX) return this.#turnAway(connection);
    this.#unknown.add(connection);
    const bytes = await firstBytesOf(connection, isEnough, this.#options.settings);
    this.#unknown.delete(connection);
    try {
      if (bytes.length < MAGIC_BYTES) {
        if (!isBegun(bytes)) return this.#turnAway(connection);
        const what = `a connection of the source was lost after its first ${bytes.length} bytes`;
        throw new MigrationError({ code: 'MIGRATION_PEER_GONE', phase: 'setup' }, `${connection.address}: ${what}`);
      }
      const magic = bytes.readUInt32BE(0);
      if (magic === HANDSHAKE_MAGIC) return await this.#takeGreeting(connection);
      if (magic === STREAM_MAGIC) this.#takeMain(connection);
      else if (magic === MULTIFD_MAGIC) this.#takeChannel(connection, bytes);
      else return this.#turnAway(connection);
      this.#taken();
    } catch (error) {
      connection.destroy();
      this.#fail(error);
    }
  }

  /** The source makes no other connection before it has its answer. */
  async #takeGreeting(connection: Connection): Promise<void> {
    if (this.#options.greet === undefined)
      throw mismatch('x-vmferry-handshake', 'none', 'a handshake of the source: it is on there only');
    this.#takeMain(connection, true);
    this.#awaitRest();
    const main = connection.channel();
    await this.#greet(main, this.#options.signal);
    this.#greeted = main;
    this.#taken();
  }

  async #greet(main: Channel, signal: AbortSignal): Promise<void> {
    const { greet } = this.#options;
    if (greet === undefined) return;
    const end = () => main.destroy(asError(signal.reason));
    signal.addEventListener('abort', end, { once: true });
    this.#greets = true;
    try {
      this.#count = await greet(main);
    } catch (error) {
      // What was answered leaves first: the source is to know all reasons too.
      await inTime(main.end(), 'farewell', this.#options.settings).catch(() => {});
      main.destroy(asError(error));
      throw error;
    } finally {
      this.#greets = false;
      signal.removeEventListener('abort', end);
    }
  }

  #takeMain(connection: Connection, greets = false): void {
    if (!greets) this.#requireGreeting();
    if ((this.#main ?? this.#greeted) !== undefined) throw mismatch('main channel', 'one', 'a second one');
    this.#main = connection;
  }

  /** Nothing else comes before the handshake is over. */
  #requireGreeting(): void {
    if (this.#options.greet !== undefined && this.#greeted === undefined)
      throw mismatch('x-vmferry-handshake', 'a handshake of the source', 'none: it is on here only');
  }

  #takeChannel(connection: Connection, bytes: Buffer): void {
    this.#requireGreeting();
    const reader = new Reader(bytes, `multifd ${connection.address}`, { final: true });
    const { uuid, channel } = decodeMultifdInitial(reader, this.#count);
    this.#uuid ??= uuid;
    if (Buffer.compare(this.#uuid, uuid) !== 0) {
      throw mismatch(`uuid of multifd ${channel}`, uuidText(this.#uuid), uuidText(uuid));
    }
    if (this.#channels.has(channel)) throw mismatch(`multifd ${channel}`, 'one channel of that id', 'a second one');
    this.#channels.set(channel, connection);
  }

  #taken(): void {
    const main = this.#options.greet === undefined ? this.#main : this.#greeted;
    if (main !== undefined && this.#channels.size === this.#count) this.#complete();
    else this.#awaitRest();
  }

  #awaitRest(): void {
    const { settings } = this.#options;
    const deadlineMs = settings.parameter(WAITS.channels.deadline);
    this.#deadline ??= setTimeout(() => {
      const hint = `are multifd and multifd-channels (here ${this.#count}) the same there?`;
      this.#fail(overdue(this.waitingFor, deadlineMs, hint));
    }, deadlineMs);
  }

  #turnAway(connection: Connection): void {
    this.#turnedAway++;
    connection.destroy();
  }

  /** By id. Throws NATIVE_UNAVAILABLE, NATIVE_CALL. */
  #lines(): Line[] {
    const lines: Line[] = [];
    try {
      for (let id = 0; id < this.#count; id++) lines.push(this.#channels.get(id)!.line());
      return lines;
    } catch (thrown) {
      for (const line of lines) closeLine(line);
      throw thrown;
    }
  }
}

/** The first bytes of somebody who has come; none if there are not enough in time: whoever says so little is a stranger, and the connection is destroyed. */
export async function firstBytesOf(
  connection: Connection,
  enough: (bytes: Buffer) => boolean,
  settings: SettingsView,
): Promise<Buffer> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    connection.destroy();
  }, settings.parameter(WAITS.introduction.deadline));
  try {
    const bytes = await connection.firstBytes(enough);
    return late ? bytes.subarray(0, 0) : bytes;
  } finally {
    clearTimeout(timer);
  }
}

const MAGIC_BYTES = 4;

const MAGICS = [STREAM_MAGIC, MULTIFD_MAGIC].map((magic) => {
  const bytes = Buffer.alloc(MAGIC_BYTES);
  bytes.writeUInt32BE(magic);
  return bytes;
});

/** Whether a connection that ended so early is one of the source's: a stranger would have begun otherwise, or said nothing. */
function isBegun(bytes: Buffer): boolean {
  return bytes.length > 0 && MAGICS.some((magic) => magic.subarray(0, bytes.length).equals(bytes));
}

/** Of an initial packet all bytes are wanted, of everything else those that tell what it is. */
function isEnough(bytes: Buffer): boolean {
  if (bytes.length < MAGIC_BYTES) return false;
  return bytes.length >= MULTIFD_INITIAL_BYTES || bytes.readUInt32BE(0) !== MULTIFD_MAGIC;
}
