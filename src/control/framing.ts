/**
 * QMP is a stream of JSON values with no length in front of them: a value ends where its brackets close, whatever the line
 * breaks. `JsonFramer` cuts such a stream into texts, `readJson` makes a value of one, `writeJson` puts one on a line.
 * @spec qemu docs/interop/qmp-spec.rst, section "Message format"
 */

/** Longest text of one value, bytes: the largest honest request is a list of settings, some kilobytes. */
export const JSON_TEXT_BYTES_MAX = 1024 * 1024;
/** Deepest nesting of brackets; QEMU's own bound. */
export const JSON_NESTING_MAX = 1024;

export type Frame =
  | { readonly kind: 'text'; readonly text: string }
  /** Bytes that cannot begin a value; they are skipped up to the end of the line. */
  | { readonly kind: 'stray'; readonly byte: number }
  /** A bound was passed. There is no telling where the next value begins: the framer gives nothing more. */
  | { readonly kind: 'overflow'; readonly reason: string };

const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Where the framer is: between values, in brackets, in a string of either, in a bare word, skipping a line, or given up. */
type State = 'between' | 'brackets' | 'string' | 'word' | 'skipping' | 'over';

/** Takes bytes as they come, in pieces of any size; gives each value's text as soon as its last byte is there. */
export class JsonFramer {
  #state: State = 'between';
  #depth = 0;
  #escaped = false;
  #parts: Buffer[] = [];
  #partBytes = 0;

  push(bytes: Buffer): Frame[] {
    const frames: Frame[] = [];
    let from = 0;
    const finish = (to: number) => {
      this.#parts.push(bytes.subarray(from, to));
      frames.push({ kind: 'text', text: Buffer.concat(this.#parts).toString('utf8') });
      this.#parts = [];
      this.#partBytes = 0;
      this.#state = 'between';
    };
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      switch (this.#state) {
        case 'over':
          return frames;
        case 'skipping':
          if (byte === NEWLINE) this.#state = 'between';
          break;
        case 'string':
          if (this.#escaped) this.#escaped = false;
          else if (byte === BACKSLASH) this.#escaped = true;
          else if (byte === QUOTE) {
            this.#state = 'brackets';
            if (this.#depth === 0) finish(at + 1);
          }
          break;
        case 'brackets':
          if (byte === QUOTE) this.#state = 'string';
          else if (opens(byte)) {
            if (++this.#depth > JSON_NESTING_MAX) return this.#giveUp(frames, 'nested too deep');
          } else if (closes(byte) && --this.#depth === 0) finish(at + 1);
          break;
        case 'word':
          if (inWord(byte)) break;
          finish(at);
          at--;
          break;
        case 'between':
          if (isSpace(byte)) break;
          from = at;
          if (opens(byte)) {
            this.#state = 'brackets';
            this.#depth = 1;
          } else if (byte === QUOTE) {
            this.#state = 'string';
            this.#depth = 0;
          } else if (inWord(byte)) {
            this.#state = 'word';
          } else {
            frames.push({ kind: 'stray', byte });
            this.#state = 'skipping';
          }
      }
      if (this.#partBytes + at - from > JSON_TEXT_BYTES_MAX && this.#inValue()) return this.#giveUp(frames, 'too long');
    }
    if (this.#inValue() && from < bytes.length) {
      // A copy: the reader of the socket may use its buffer again.
      this.#parts.push(Buffer.from(bytes.subarray(from)));
      this.#partBytes += bytes.length - from;
    }
    return frames;
  }

  #inValue(): boolean {
    return this.#state === 'brackets' || this.#state === 'string' || this.#state === 'word';
  }

  #giveUp(frames: Frame[], reason: string): Frame[] {
    this.#state = 'over';
    this.#parts = [];
    return [...frames, { kind: 'overflow', reason }];
  }
}

/** The value, or what is wrong with the text. */
export function readJson(text: string): { readonly value: unknown } | { readonly problem: string } {
  try {
    return { value: JSON.parse(text) };
  } catch (thrown) {
    return { problem: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

/**
 * The value on one line, ended by CR LF as QEMU ends them. Whole numbers above 2^53 are written digit by digit and not in
 * the rounded form of JSON.stringify; 2^64 stands for the largest unsigned 64-bit number.
 */
export function writeJson(value: unknown): string {
  return `${stringify(value)}\r\n`;
}

function stringify(value: unknown): string {
  if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) > Number.MAX_SAFE_INTEGER) {
    const exact = BigInt(value);
    return String(exact === 1n << 64n ? exact - 1n : exact);
  }
  if (Array.isArray(value)) return `[${value.map((item) => stringify(item ?? null)).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return `{${members.map(([name, member]) => `${JSON.stringify(name)}: ${stringify(member)}`).join(', ')}}`;
  }
  return JSON.stringify(value);
}

function opens(byte: number): boolean {
  return byte === 0x7b || byte === 0x5b;
}

function closes(byte: number): boolean {
  return byte === 0x7d || byte === 0x5d;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === NEWLINE || byte === 0x0d || byte === 0x09;
}

/** Bytes of numbers, true, false, null and of misspelt ones. */
function inWord(byte: number): boolean {
  const isDigit = byte >= 0x30 && byte <= 0x39;
  const isLetter = (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a;
  return isDigit || isLetter || byte === 0x2d || byte === 0x2b || byte === 0x2e || byte === 0x5f;
}
