/**
 * Bytes of a device nobody here knows, explained by the entry that the stream's VMDESC has for it. @spec qemu-wire 4.3, 4.4.
 *
 *     body       = field{array_len}* subsection*
 *     field      = struct: body of its `struct` | any other type: `size` bytes
 *     subsection = 05 cstr(vmsd_name) u32(version) body
 */
import { FerryError, Reader } from '../../base/index.ts';
import { SUBSECTION } from './description.ts';
import type { VmdescDevice, VmdescFault, VmdescField, VmdescStruct } from './vmdesc.ts';

/** All offsets count from the start of the section's body, bytes. */
export interface WalkedLeaf {
  readonly kind: 'leaf';
  readonly name: string;
  /** QEMU's VMStateInfo name. */
  readonly type: string;
  readonly offset: number;
  /** Bytes of one element; element i is at `offset + i * size`. */
  readonly size: number;
  readonly count: number;
}

/** One struct, or one element of an array of them. */
export interface WalkedStruct {
  readonly kind: 'struct';
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly body: WalkedBody;
}

export type WalkedField = WalkedLeaf | WalkedStruct;

export interface WalkedBody {
  /** Undefined for old style devices. */
  readonly vmsdName: string | undefined;
  readonly version: number | undefined;
  /** First byte of the fields; that of a subsection lies behind its marker, name and version. */
  readonly offset: number;
  /** Up to the end of the last subsection. */
  readonly size: number;
  readonly fields: readonly WalkedField[];
  readonly subsections: readonly WalkedBody[];
}

/** Fields of one device, structs and subsections included: a description may not cost more memory than it is worth. */
export const WALKED_FIELDS_MAX = 500_000;

/**
 * The fields of `body`, a whole section body that lies at stream offset `origin`. Throws VMDESC_MISMATCH if the description does not
 * consume it exactly.
 */
export function walkBody(device: VmdescDevice, body: Buffer, stream = 'stream', origin = 0): WalkedBody {
  const reader = new Reader(body, stream, { final: true, origin });
  const walked = walkPrefix(device, reader);
  if (reader.available > 0) {
    mismatch(reader, `section ${device.name}`, 'the end of the body', `${reader.available} more bytes`);
  }
  return walked;
}

/** As `walkBody` for a body that begins where `reader` (final) stands and may be followed by anything; consumes it. */
export function walkPrefix(device: VmdescDevice, reader: Reader): WalkedBody {
  return new Walk(reader).body(device, `section ${device.name}`);
}

class Walk {
  readonly #reader: Reader;
  readonly #start: number;
  #fieldsLeft = WALKED_FIELDS_MAX;

  constructor(reader: Reader) {
    this.#reader = reader;
    this.#start = reader.pos;
  }

  body(from: VmdescDevice | VmdescStruct, path: string): WalkedBody {
    const offset = this.#reader.pos - this.#start;
    const fields: WalkedField[] = [];
    for (const field of from.fields) this.#field(field, `${path} / ${field.name}`, fields);
    const subsections = (from.subsections ?? []).map((sub) => this.#subsection(sub, `${path} / ${sub.vmsd_name}`));
    const size = this.#reader.pos - this.#start - offset;
    return { vmsdName: from.vmsd_name, version: from.version, offset, size, fields, subsections };
  }

  #field({ name, type, size, struct, array_len }: VmdescField, path: string, into: WalkedField[]): void {
    const reader = this.#reader;
    const count = array_len ?? 1;
    if (type === 'capability') {
      // A cstr each, of which `size` knows only the first.
      for (let i = 0; i < count; i++) into.push(this.#leaf(name, type, 1 + (reader.bytes[reader.pos] ?? 0), 1, path));
      return;
    }
    if (struct === undefined) {
      into.push(this.#leaf(name, type, size, count, path));
      return;
    }
    for (let i = 0; i < count; i++) {
      this.#spend(1, path);
      const body = this.body(struct, path);
      into.push({ kind: 'struct', name, offset: body.offset, size: body.size, body });
    }
  }

  #leaf(name: string, type: string, size: number, count: number, path: string): WalkedLeaf {
    const reader = this.#reader;
    // Elements of no bytes must not be many either: who shows them has to go through them.
    this.#spend(size === 0 ? count : 1, path);
    const offset = reader.pos - this.#start;
    if (size * count > reader.available) {
      mismatch(reader, path, `${count} times ${size} bytes (${type})`, `${reader.available} bytes`);
    }
    reader.pos += size * count;
    return { kind: 'leaf', name, type, offset, size, count };
  }

  #subsection(sub: VmdescStruct, path: string): WalkedBody {
    const reader = this.#reader;
    this.#spend(1, path);
    const wanted = `subsection ${sub.vmsd_name} version ${sub.version}`;
    const nameBytes = sub.vmsd_name.length;
    const header = reader.bytes.subarray(reader.pos, Math.min(reader.pos + 1 + 1 + nameBytes + 4, reader.end));
    if (
      header.length < 2 + nameBytes + 4 ||
      header[0] !== SUBSECTION ||
      header[1] !== nameBytes ||
      header.toString('latin1', 2, 2 + nameBytes) !== sub.vmsd_name ||
      header.readUInt32BE(2 + nameBytes) !== sub.version
    ) {
      mismatch(reader, path, wanted, header.subarray(0, 16).toString('hex') || 'nothing');
    }
    reader.pos += header.length;
    return this.body(sub, path);
  }

  #spend(fields: number, path: string): void {
    this.#fieldsLeft -= fields;
    if (this.#fieldsLeft < 0) {
      mismatch(this.#reader, path, `at most ${WALKED_FIELDS_MAX} fields in a device`, 'more');
    }
  }
}

function mismatch(reader: Reader, path: string, expected: string, found: string): never {
  const { stream, offset } = reader;
  const fault: VmdescFault = { code: 'VMDESC_MISMATCH', stream, offset, path, expected, found };
  throw new FerryError(fault, `${stream}: offset ${offset}: ${path}: the VMDESC says ${expected}, found ${found}`);
}
