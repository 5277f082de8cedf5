/**
 * VERSION: first message, once, both directions alike: u16 major, u16 minor, and JSON with a NUL behind it or nothing at all.
 *
 * ```
 * {"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"twin_socket":{"supported":true}, ...}}
 * ```
 * @spec qemu docs/interop/vfio-user.rst, VFIO_USER_VERSION
 */
import { overLimit, type WireError } from '../errors.ts';
import { type Field, struct, u16 } from './layout.ts';

export const PROTOCOL_MAJOR = 0;
export const PROTOCOL_MINOR = 2;

/** What a side offers; what it does not name has the protocol's default (CAPABILITY_DEFAULTS). Unknown names are skipped. */
export interface Capabilities {
  /** Descriptors that it can receive with one message. */
  readonly maxMsgFds?: number;
  /** Largest count of a message with data, bytes. */
  readonly maxDataXferSize?: number;
  readonly maxDmaMaps?: number;
  /** Mask of page sizes of DMA mappings, bytes. */
  readonly pgsizes?: number;
  /** REGION_WRITE_MULTI is understood. */
  readonly writeMultiple?: boolean;
  /**
   * vmferry's own word, which a server says only after the client: messages may arrive in any number of pieces, and several at a time.
   * Who does not say it is sent one small message after the other.
   */
  readonly splitMessages?: boolean;
  /** Commands of the server go over a socket of their own; the reply says at which place among its descriptors that is. */
  readonly twinSocket?: { readonly supported: boolean; readonly fdIndex?: number };
  /** Of drafts of the protocol; libvfio-user still sends it when its device can migrate. */
  readonly migration?: { readonly pgsize?: number; readonly maxBitmapSize?: number };
}

export const CAPABILITY_DEFAULTS = {
  maxMsgFds: 1,
  maxDataXferSize: 1024 * 1024,
  maxDmaMaps: 65_535,
  pgsizes: 4096,
  writeMultiple: false,
} as const satisfies Capabilities;

/** Longest JSON that is read, bytes with its NUL; QEMU sends 221. */
const JSON_BYTES_MAX = 16 * 1024;

/** Members of an object: our name, and what the JSON calls it and holds there. */
type Shape = Readonly<Record<string, readonly [string, 'number' | 'boolean' | Shape]>>;

const SHAPE = {
  maxMsgFds: ['max_msg_fds', 'number'],
  maxDataXferSize: ['max_data_xfer_size', 'number'],
  maxDmaMaps: ['max_dma_maps', 'number'],
  pgsizes: ['pgsizes', 'number'],
  writeMultiple: ['write_multiple', 'boolean'],
  splitMessages: ['split_messages', 'boolean'],
  twinSocket: ['twin_socket', { supported: ['supported', 'boolean'], fdIndex: ['fd_index', 'number'] }],
  migration: ['migration', { pgsize: ['pgsize', 'number'], maxBitmapSize: ['max_bitmap_size', 'number'] }],
} as const satisfies Record<keyof Capabilities, Shape[string]>;

const capabilities: Field<Capabilities | undefined> & { readonly varies: true } = {
  bytes: 0,
  varies: true,
  sizeOf: (value) => (value === undefined ? 0 : Buffer.byteLength(textOf(value)) + 1),
  read(payload, name) {
    if (payload.rest === 0) return undefined;
    const at = payload.pos;
    if (payload.rest > JSON_BYTES_MAX) {
      throw overLimit(payload, payload.origin + at, payload.path, `bytes of ${name}`, JSON_BYTES_MAX, payload.rest);
    }
    const bytes = payload.view(payload.rest, name);
    const end = bytes.indexOf(0);
    if (end < 0) throw payload.wrong(at, name, 'JSON with a NUL behind it', 'no NUL');
    const refuse: Refuse = (path, expected, found) => payload.wrong(at, path, expected, found);
    const parsed = parseJson(bytes.toString('utf8', 0, end), name, refuse);
    return readShape(parsed['capabilities'] ?? {}, SHAPE, name, refuse);
  },
  write(into, at, value) {
    if (value === undefined) return;
    const written = into.write(textOf(value), at, 'utf8');
    into[at + written] = 0;
  },
};

export const Version = struct({ major: u16, minor: u16, capabilities });

type Refuse = (path: string, expected: string, found: string) => WireError;

function parseJson(text: string, name: string, refuse: Refuse): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw refuse(name, 'JSON', JSON.stringify(text.slice(0, 40)));
  }
  if (!isObject(parsed)) throw refuse(name, 'a JSON object', kindOf(parsed));
  return parsed;
}

function readShape(found: unknown, shape: Shape, path: string, refuse: Refuse): Capabilities {
  if (!isObject(found)) throw refuse(path, 'a JSON object', kindOf(found));
  const value: Record<string, unknown> = {};
  for (const [ours, [theirs, kind]] of Object.entries(shape)) {
    const member = found[theirs];
    if (member === undefined) continue;
    const at = `${path}.${theirs}`;
    if (typeof kind === 'object') value[ours] = readShape(member, kind, at, refuse);
    else if (kind === 'boolean' && typeof member === 'boolean') value[ours] = member;
    else if (kind === 'number' && typeof member === 'number' && Number.isSafeInteger(member) && member >= 0) {
      value[ours] = member;
    } else throw refuse(at, kind === 'number' ? 'a whole number' : 'true or false', kindOf(member));
  }
  return value;
}

function textOf(value: Capabilities): string {
  return JSON.stringify({ capabilities: writeShape(value, SHAPE) });
}

function writeShape(value: object, shape: Shape): Record<string, unknown> {
  const members = Object.entries(shape).flatMap(([ours, [theirs, kind]]) => {
    const member = (value as Record<string, unknown>)[ours];
    if (member === undefined) return [];
    return [[theirs, typeof kind === 'object' ? writeShape(member as object, kind) : member]];
  });
  return Object.fromEntries(members) as Record<string, unknown>;
}

function isObject(found: unknown): found is Record<string, unknown> {
  return typeof found === 'object' && found !== null && !Array.isArray(found);
}

function kindOf(found: unknown): string {
  return typeof found === 'number' ? String(found) : isObject(found) ? 'an object' : (JSON.stringify(found) ?? '');
}
