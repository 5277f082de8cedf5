/** What the tests of inspect share: files in memory, and streams made by hand. */
import { Writer } from '../../src/base/index.ts';
import { type ByteSource, type Inspection, inspect, type Report } from '../../src/inspect/index.ts';
import {
  encodeConfiguration,
  encodeDescription,
  encodeEndOfStream,
  encodeHeader,
  encodeSectionBegin,
  encodeSectionFooter,
  type VmdescDevice,
  vmdescText,
} from '../../src/wire/index.ts';

export function fileOf(bytes: Buffer, name = 'file'): ByteSource {
  return {
    name,
    size: bytes.length,
    async read(offset, into) {
      return offset >= bytes.length ? 0 : bytes.copy(into, 0, offset);
    },
  };
}

export function inspectBytes(bytes: Buffer, offset = 0): Promise<Inspection> {
  return inspect(fileOf(bytes), { offset });
}

/** Bytes that the report speaks of: all of the file, each once. */
export function accounted({ bytes, unaccounted }: Report): number {
  const known = Object.values(bytes).reduce((sum, count) => sum + count, 0);
  return unaccounted.reduce((sum, { bytes }) => sum + bytes, known);
}

export interface MadeDevice {
  readonly body: Buffer;
  /** Undefined: the description does not mention the section. */
  readonly described: Omit<VmdescDevice, 'name' | 'instance_id'> | undefined;
}

/** A stream without RAM: FULL sections `<name>`, ids from 20 on. */
export function streamOf(
  devices: Readonly<Record<string, MadeDevice>>,
  options: { description?: boolean } = {},
): Buffer {
  const configuration = {
    machineType: 'pc-q35-7.2',
    targetPageBits: undefined,
    capabilities: undefined,
    uuid: undefined,
  };
  const writer = new Writer();
  encodeHeader(writer);
  encodeConfiguration(writer, configuration);
  const entries: VmdescDevice[] = [];
  Object.entries(devices).forEach(([idstr, { body, described }], i) => {
    encodeSectionBegin(writer, { kind: 'full', id: 20 + i, idstr, instance: 0, version: 1 });
    writer.raw(body);
    encodeSectionFooter(writer, 20 + i);
    if (described !== undefined) entries.push({ name: idstr, instance_id: 0, ...described });
  });
  encodeEndOfStream(writer);
  if (options.description !== false) encodeDescription(writer, vmdescText(configuration, 4096, entries));
  return Buffer.from(writer.bytes());
}
