/**
 * Body of a VFIO device's section: u64 tags.
 *
 * ```
 * SETUP_STATE, END      DATA_STATE: u64 n, n bytes      CONFIG_STATE: device config without a length, END
 * INIT_DATA_SENT and CONFIG_LOAD_READY end the body like END
 * ```
 * @spec qemu hw/vfio/migration.c, vfio-migration-internal.h
 */
import { type Reader, STARVED, type Writer } from '../../../base/index.ts';
import { overLimit, unexpected } from '../../errors.ts';
import { u64Number } from '../../fields.ts';
import { DEVICE_BODY_BYTES_MAX, VFIO_CONFIG_BYTES_MAX } from '../../limits.ts';
import { ELEMENT } from '../section.ts';

/** All tags share the upper 32 bits. */
const TAG_HIGH = 0xffffffff;
export const VFIO_TAG = {
  END_OF_STATE: 0xef100001,
  DEV_CONFIG_STATE: 0xef100002,
  DEV_SETUP_STATE: 0xef100003,
  DEV_DATA_STATE: 0xef100004,
  DEV_INIT_DATA_SENT: 0xef100005,
  DEV_CONFIG_LOAD_READY: 0xef100006,
} as const;

/** One element of a body, as it arrives. */
export type VfioElement =
  | { readonly tag: 'DEV_SETUP_STATE' }
  /** A piece of a block of device data, valid until the next event; `left` bytes of the block follow in further ones. */
  | { readonly tag: 'DEV_DATA_STATE'; readonly bytes: Buffer; readonly left: number }
  /** The configuration, whole, without tags; valid until the next event. */
  | { readonly tag: 'DEV_CONFIG_STATE'; readonly bytes: Buffer }
  /** These end the body. */
  | { readonly tag: 'END_OF_STATE' | 'DEV_INIT_DATA_SENT' | 'DEV_CONFIG_LOAD_READY' };

export function isVfioSection(idstr: string): boolean {
  return idstr === 'vfio' || idstr.endsWith('/vfio');
}

export function encodeVfioTag(writer: Writer, tag: keyof typeof VFIO_TAG): void {
  writer.u32(TAG_HIGH).u32(VFIO_TAG[tag]);
}

/** Head of a block of device data; its bytes follow. */
export function encodeVfioData(writer: Writer, byteCount: number): void {
  encodeVfioTag(writer, 'DEV_DATA_STATE');
  writer.u32(Math.floor(byteCount / 2 ** 32)).u32(byteCount >>> 0);
}

/** The configuration in a buffer that has nothing else: CONFIG_STATE and END around it. Undefined if it is not that. The bytes are a copy. */
export function decodeVfioConfig(bytes: Buffer): Buffer | undefined {
  const isTag = (at: number, tag: number) =>
    at >= 0 && bytes.readUInt32BE(at) === TAG_HIGH && bytes.readUInt32BE(at + 4) === tag;
  const end = bytes.length - 8;
  if (end < 8 || !isTag(0, VFIO_TAG.DEV_CONFIG_STATE) || !isTag(end, VFIO_TAG.END_OF_STATE)) return undefined;
  return Buffer.from(bytes.subarray(8, end));
}

export class VfioBody {
  /** END_OF_STATE and the footer behind it: the only end of a device config. */
  readonly #configEnd: Buffer;
  /** Inside a device config: stream offset up to which its end was not found; -1 outside. */
  #searched = -1;
  /** Of a block of device data. */
  #left = 0;
  /** SETUP_STATE carries nothing. */
  #onlyEnd = false;
  ended = false;

  constructor(id: number) {
    this.#configEnd = Buffer.alloc(13);
    this.#configEnd.writeUInt32BE(TAG_HIGH, 0);
    this.#configEnd.writeUInt32BE(VFIO_TAG.END_OF_STATE, 4);
    this.#configEnd[8] = ELEMENT.SECTION_FOOTER;
    this.#configEnd.writeUInt32BE(id, 9);
  }

  /** The next element, or piece of one. Throws WireError, STARVED. */
  next(reader: Reader): VfioElement {
    if (this.#left > 0) return this.#data(reader);
    const at = reader.offset;
    reader.need(8);
    const high = reader.u32();
    const tag = reader.u32();
    const isEnd = tag === VFIO_TAG.END_OF_STATE;
    if (high !== TAG_HIGH || (this.#onlyEnd && !isEnd)) throw this.#unexpected(reader, at);
    switch (tag) {
      case VFIO_TAG.END_OF_STATE:
        this.ended = true;
        return { tag: 'END_OF_STATE' };
      case VFIO_TAG.DEV_INIT_DATA_SENT:
        this.ended = true;
        return { tag: 'DEV_INIT_DATA_SENT' };
      case VFIO_TAG.DEV_CONFIG_LOAD_READY:
        this.ended = true;
        return { tag: 'DEV_CONFIG_LOAD_READY' };
      case VFIO_TAG.DEV_SETUP_STATE:
        this.#onlyEnd = true;
        return { tag: 'DEV_SETUP_STATE' };
      case VFIO_TAG.DEV_DATA_STATE: {
        const length = u64Number(reader, '', 'length of the device data');
        if (length > DEVICE_BODY_BYTES_MAX) {
          throw overLimit(reader, at + 8, '', 'length of the device data', DEVICE_BODY_BYTES_MAX, length);
        }
        if (length === 0) return { tag: 'DEV_DATA_STATE', bytes: reader.view(0), left: 0 };
        reader.need(1);
        this.#left = length;
        return this.#data(reader);
      }
      case VFIO_TAG.DEV_CONFIG_STATE:
        return this.#config(reader, at);
      default:
        throw this.#unexpected(reader, at);
    }
  }

  #data(reader: Reader): VfioElement {
    reader.need(1);
    const bytes = reader.view(Math.min(reader.available, this.#left));
    this.#left -= bytes.length;
    return { tag: 'DEV_DATA_STATE', bytes, left: this.#left };
  }

  /** The reader is behind the tag at `at`; it goes back there until all is here. */
  #config(reader: Reader, at: number): VfioElement {
    const start = reader.offset;
    this.#searched = Math.max(this.#searched, start);
    const seen = reader.bytes.subarray(0, reader.end);
    const hit = seen.indexOf(this.#configEnd, this.#searched - reader.origin);
    const length = (hit < 0 ? reader.end : hit) - reader.pos;
    if (length > VFIO_CONFIG_BYTES_MAX) {
      throw overLimit(reader, at, '', 'length of the configuration', VFIO_CONFIG_BYTES_MAX, length);
    }
    if (hit < 0) {
      this.#searched = Math.max(start, reader.origin + reader.end - this.#configEnd.length + 1);
      reader.need(reader.available + 1);
      throw STARVED;
    }
    this.#searched = -1;
    this.#onlyEnd = true;
    return { tag: 'DEV_CONFIG_STATE', bytes: reader.view(length) };
  }

  #unexpected(reader: Reader, at: number): Error {
    const expected = this.#onlyEnd ? 'END_OF_STATE' : 'a VFIO tag (0xffffffffef10000x)';
    const found = reader.bytes.readBigUInt64BE(at - reader.origin);
    return unexpected(reader, at, '', 'tag', expected, '0x' + found.toString(16));
  }
}
