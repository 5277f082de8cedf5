import { CONSOLE_BYTES, type ConsoleState } from './devices.ts';

/** A console that remembers the last CONSOLE_BYTES bytes written to it. Text is latin1. */
export class Console {
  readonly #ring = new Uint8Array(CONSOLE_BYTES);
  /** Bytes and lines ever written. */
  #written = 0;
  #lines = 0;
  /** Bytes at the end of what was written that nobody has read. */
  #unread = 0;

  writeLine(line: string): void {
    const bytes = Buffer.from(line + '\n', 'latin1').subarray(-CONSOLE_BYTES);
    for (const byte of bytes) this.#ring[this.#written++ % CONSOLE_BYTES] = byte;
    this.#lines++;
    this.#unread = Math.min(CONSOLE_BYTES, this.#unread + bytes.length);
  }

  /** What was written since the last read, as far as it is still there. */
  read(): string {
    const bytes = Buffer.alloc(this.#unread);
    const first = this.#written - this.#unread;
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.#ring[(first + i) % CONSOLE_BYTES]!;
    this.#unread = 0;
    return bytes.toString('latin1');
  }

  save(): ConsoleState {
    return {
      written: BigInt(this.#written),
      lines: this.#lines,
      ring: this.#ring.slice(),
      unread: { unread: this.#unread },
    };
  }

  /** Name of the field that cannot be, if one cannot. */
  static wrongField(state: ConsoleState): 'written' | 'unread' | undefined {
    if (state.written > BigInt(Number.MAX_SAFE_INTEGER)) return 'written';
    const unread = state.unread?.unread ?? 0;
    return unread > CONSOLE_BYTES || unread > state.written ? 'unread' : undefined;
  }

  load(state: ConsoleState): void {
    this.#written = Number(state.written);
    this.#lines = state.lines;
    this.#ring.set(state.ring);
    this.#unread = state.unread?.unread ?? 0;
  }
}
