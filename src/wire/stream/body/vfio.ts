/**
 * Body of a VFIO device's section: u64 tags.
 *
 * ```
 * SETUP_STATE, END      DATA_STATE: u64 n, n bytes      CONFIG_STATE: device config without a length, END
 * INIT_DATA_SENT and CONFIG_LOAD_READY end the body like END
 * ```
 * @spec qemu hw/vfio/migration.c, vfio-migration-internal.h
 */
import { type Reader, STARVED } from '../../../base/index.ts';
import { overLimit, unexpected } from '../../errors.ts';
import { u64Number } from '../../fields.ts';
import { DEVICE_BODY_BYTES_MAX } from '../../limits.ts';
import { ELEMENT } from '../section.ts';
import type { BodyScan } from './scan.ts';

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

export class VfioScan implements BodyScan {
  /** END_OF_STATE and the footer behind it: the only end of a device config. */
  readonly #configEnd: Buffer;
  /** Inside a device config: stream offset up to which its end was not found; -1 outside. */
  #configAt = -1;

  constructor(id: number) {
    this.#configEnd = Buffer.alloc(13);
    this.#configEnd.writeUInt32BE(TAG_HIGH, 0);
    this.#configEnd.writeUInt32BE(VFIO_TAG.END_OF_STATE, 4);
    this.#configEnd[8] = ELEMENT.SECTION_FOOTER;
    this.#configEnd.writeUInt32BE(id, 9);
  }

  step(reader: Reader): boolean {
    if (this.#configAt >= 0) return this.#skipConfig(reader);
    const at = reader.offset;
    reader.need(8);
    const high = reader.u32();
    const tag = reader.u32();
    if (high !== TAG_HIGH) throw unknownTag(reader, at);
    switch (tag) {
      case VFIO_TAG.END_OF_STATE:
      case VFIO_TAG.DEV_INIT_DATA_SENT:
      case VFIO_TAG.DEV_CONFIG_LOAD_READY:
        return true;
      case VFIO_TAG.DEV_SETUP_STATE:
        return false;
      case VFIO_TAG.DEV_DATA_STATE: {
        const length = u64Number(reader, '', 'length of the device data');
        if (length > DEVICE_BODY_BYTES_MAX) {
          throw overLimit(reader, at + 8, '', 'length of the device data', DEVICE_BODY_BYTES_MAX, length);
        }
        reader.skip(length);
        return false;
      }
      case VFIO_TAG.DEV_CONFIG_STATE:
        this.#configAt = reader.offset;
        return this.#skipConfig(reader);
      default:
        throw unknownTag(reader, at);
    }
  }

  #skipConfig(reader: Reader): boolean {
    const seen = reader.bytes.subarray(0, reader.end);
    const hit = seen.indexOf(this.#configEnd, this.#configAt - reader.origin);
    if (hit < 0) {
      this.#configAt = Math.max(this.#configAt, reader.origin + reader.end - this.#configEnd.length + 1);
      reader.need(reader.available + 1);
      throw STARVED;
    }
    reader.pos = hit + 8;
    return true;
  }
}

function unknownTag(reader: Reader, at: number): Error {
  const found = reader.bytes.readBigUInt64BE(at - reader.origin);
  return unexpected(reader, at, '', 'tag', 'a VFIO tag (0xffffffffef10000x)', '0x' + found.toString(16));
}
