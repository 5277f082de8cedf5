/**
 * ```
 * 07   u32 length, machine type
 *      [05 cstr "configuration/target-page-bits" u32 1   u32 bits]
 *      [05 cstr "configuration/capabilities"     u32 1   u32 count, count x cstr]
 *      [05 cstr "configuration/uuid"             u32 1   16 bytes]
 * ```
 * Which subsection follows, if any, is known only by looking at the next byte, so decoding wants one byte more.
 * @spec qemu migration/savevm.c vmstate_configuration
 */
import type { Reader, Writer } from '../../base/index.ts';
import { overLimit, unexpected, unsupported } from '../errors.ts';
import { expectValue, isPrintable, nameField } from '../fields.ts';
import { CAPABILITIES_MAX, MACHINE_TYPE_BYTES_MAX, TARGET_PAGE_BITS_MAX, TARGET_PAGE_BITS_MIN } from '../limits.ts';
import type { Configuration } from './events.ts';
import { ELEMENT } from './section.ts';

const PATH = 'configuration';
const SUBSECTION_VERSION = 1;
const UUID_BYTES = 16;
/** Of a stream without the subsection. */
const LEGACY_PAGE_BITS = 12;

/** Capabilities that can stand in the configuration: they change the layout of the stream. */
const STREAM_CAPABILITIES = ['x-ignore-shared', 'mapped-ram'] as const;

/** Target page size, bytes. */
export function pageSizeOf(targetPageBits: number = LEGACY_PAGE_BITS): number {
  return 1 << targetPageBits;
}

export function encodeConfiguration(writer: Writer, configuration: Configuration): void {
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  writer.u8(ELEMENT.CONFIGURATION).u32(machineType.length).raw(Buffer.from(machineType, 'latin1'));
  if (targetPageBits !== undefined) {
    encodeSubsection(writer, 'target-page-bits').u32(targetPageBits);
  }
  if (capabilities !== undefined) {
    encodeSubsection(writer, 'capabilities').u32(capabilities.length);
    for (const name of capabilities) writer.cstr(name);
  }
  if (uuid !== undefined) encodeSubsection(writer, 'uuid').raw(uuid);
}

function encodeSubsection(writer: Writer, name: string): Writer {
  return writer.u8(ELEMENT.SUBSECTION).cstr(`${PATH}/${name}`).u32(SUBSECTION_VERSION);
}

export function decodeConfiguration(reader: Reader): Configuration {
  const at = reader.offset;
  expectValue(reader, at, PATH, 'element type', ELEMENT.CONFIGURATION, reader.u8());
  const length = reader.u32();
  if (length > MACHINE_TYPE_BYTES_MAX) {
    throw overLimit(reader, at + 1, PATH, 'length of the machine type', MACHINE_TYPE_BYTES_MAX, length);
  }
  const machineType = reader.view(length).toString('latin1');
  if (!isPrintable(machineType)) {
    throw unexpected(reader, at + 5, PATH, 'machine type', 'a printable name', JSON.stringify(machineType));
  }

  const found: { -readonly [Key in keyof Configuration]: Configuration[Key] } = {
    machineType,
    targetPageBits: undefined,
    capabilities: undefined,
    uuid: undefined,
  };
  while (reader.peekU8() === ELEMENT.SUBSECTION) {
    const start = reader.offset;
    reader.u8();
    const name = nameField(reader, PATH, 'subsection name');
    const path = `${PATH} / ${name}`;
    expectValue(reader, reader.offset, path, 'version', SUBSECTION_VERSION, reader.u32());
    let seen: unknown;
    switch (name) {
      case 'configuration/target-page-bits':
        seen = found.targetPageBits;
        found.targetPageBits = decodePageBits(reader, path);
        break;
      case 'configuration/capabilities':
        seen = found.capabilities;
        found.capabilities = decodeCapabilities(reader, path);
        break;
      case 'configuration/uuid':
        seen = found.uuid;
        found.uuid = Buffer.from(reader.view(UUID_BYTES));
        break;
      default:
        throw unsupported(reader, start, PATH, 'this subsection of the configuration', name);
    }
    if (seen !== undefined) throw unexpected(reader, start, PATH, 'subsection', 'each at most once', name);
  }
  return found;
}

function decodePageBits(reader: Reader, path: string): number {
  const at = reader.offset;
  const bits = reader.u32();
  if (bits < TARGET_PAGE_BITS_MIN || bits > TARGET_PAGE_BITS_MAX) {
    throw unexpected(reader, at, path, 'page bits', `${TARGET_PAGE_BITS_MIN} to ${TARGET_PAGE_BITS_MAX}`, bits);
  }
  return bits;
}

function decodeCapabilities(reader: Reader, path: string): string[] {
  const at = reader.offset;
  const count = reader.u32();
  if (count > CAPABILITIES_MAX) throw overLimit(reader, at, path, 'count', CAPABILITIES_MAX, count);
  const names: string[] = [];
  for (let i = 0; i < count; i++) {
    const nameAt = reader.offset;
    const name = nameField(reader, path, 'capability');
    if (!(STREAM_CAPABILITIES as readonly string[]).includes(name)) {
      throw unsupported(reader, nameAt, path, 'a capability that changes the stream in an unknown way', name);
    }
    if (names.includes(name)) throw unexpected(reader, nameAt, path, 'capability', 'each once', name);
    names.push(name);
  }
  return names;
}

/** 16 bytes as people write them: 01234567-89ab-cdef-0123-456789abcdef. */
export function uuidText(uuid: Uint8Array): string {
  return Buffer.from(uuid)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
