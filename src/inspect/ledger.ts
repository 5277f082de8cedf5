import { assert } from '../base/index.ts';
import type { ByteKind, Report } from './report.ts';

/** Where every byte of the file went. Ranges come in order and without overlap; what is left out between them is unaccounted. */
export class Ledger {
  readonly #bytes: Partial<Record<ByteKind, number>> = {};
  readonly #unaccounted: { offset: number; bytes: number }[] = [];
  #position = 0;

  /** All bytes before this offset are entered. */
  get position(): number {
    return this.#position;
  }

  /** The bytes from `position` up to `end`: as `parts` says, what is left over as `rest`. */
  to(end: number, rest: ByteKind, parts: Partial<Record<ByteKind, number>> = {}): void {
    let left = end - this.#position;
    for (const [kind, bytes] of Object.entries(parts) as [ByteKind, number][]) {
      this.#add(kind, bytes);
      left -= bytes;
    }
    assert(left >= 0, `ledger: ${-left} bytes entered twice before offset ${end}`);
    this.#add(rest, left);
    this.#position = end;
  }

  /** Nobody knows what the bytes up to `end` are. */
  skip(end: number): void {
    if (end > this.#position) this.#unaccounted.push({ offset: this.#position, bytes: end - this.#position });
    this.#position = Math.max(this.#position, end);
  }

  get result(): Pick<Report, 'bytes' | 'unaccounted'> {
    return { bytes: { ...this.#bytes }, unaccounted: [...this.#unaccounted] };
  }

  #add(kind: ByteKind, bytes: number): void {
    if (bytes > 0) this.#bytes[kind] = (this.#bytes[kind] ?? 0) + bytes;
  }
}
