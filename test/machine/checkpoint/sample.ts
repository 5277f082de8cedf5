/** A small machine written into a checkpoint, page by page as a stream brings it. */
import type { RamSink } from '../../../src/machine/index.ts';
import { CheckpointWriter } from '../../../src/machine/index.ts';
import {
  type AnnouncedBlock,
  type Configuration,
  encodeBody,
  globalState,
  globalStateOf,
  type SectionHeader,
  vmdescDevice,
  vmdescText,
} from '../../../src/wire/index.ts';

export const PAGE = 4096;

export const CONFIGURATION: Configuration = {
  machineType: 'pc-i440fx-7.2',
  targetPageBits: undefined,
  capabilities: undefined,
  uuid: undefined,
};

export const BLOCKS: readonly AnnouncedBlock[] = [
  { idstr: 'pc.ram', usedLength: 700 * PAGE },
  { idstr: 'pc.bios', usedLength: 64 * PAGE },
  { idstr: '/rom@etc/acpi/rsdp', usedLength: PAGE },
];

export function fullSection(id: number, idstr: string, instance = 0, version = 1): SectionHeader {
  return { kind: 'full', id, idstr, instance, version };
}

export interface Device {
  readonly section: SectionHeader;
  readonly body: Buffer;
}

export const GLOBAL_STATE: Device = {
  section: fullSection(7, 'globalstate'),
  body: encodeBody(globalState, globalStateOf('running')),
};

/** Says of every device that it is one buffer; of global state what it is. */
export function descriptionOf(devices: readonly Device[]): string {
  const entries = devices.map(({ section, body }) =>
    section.idstr === 'globalstate'
      ? vmdescDevice(globalState, globalStateOf('running'), section)
      : {
          name: section.idstr,
          instance_id: section.instance,
          fields: [{ name: 'data', size: body.length, type: 'buffer' }],
        },
  );
  return vmdescText(CONFIGURATION, PAGE, entries);
}

export interface Sample {
  readonly configuration?: Configuration;
  readonly blocks?: readonly AnnouncedBlock[];
  readonly early?: readonly Device[];
  readonly devices?: readonly Device[];
  /** Default: one that fits the devices. */
  readonly description?: string;
  readonly ignoreShared?: boolean;
  pages?(sink: RamSink, writer: CheckpointWriter): Promise<void> | void;
}

/** Everything but commit. */
export async function fillCheckpoint(path: string, sample: Sample = {}): Promise<CheckpointWriter> {
  const writer = new CheckpointWriter(path);
  const { early = [], devices = [GLOBAL_STATE], blocks = BLOCKS } = sample;
  try {
    await writer.configure(sample.configuration ?? CONFIGURATION);
    for (const { section, body } of early) await writer.loadDevice(section, body);
    const sink = await writer.prepareRam(blocks, { ignoreShared: sample.ignoreShared ?? false });
    await (sample.pages ?? stripes(blocks))(sink, writer);
    for (const { section, body } of devices) await writer.loadDevice(section, body);
    await writer.describe(sample.description ?? descriptionOf([...early, ...devices]));
  } catch (error) {
    await writer.discard();
    throw error;
  }
  return writer;
}

export async function writeCheckpoint(path: string, sample: Sample = {}): Promise<void> {
  const writer = await fillCheckpoint(path, sample);
  await writer.commit();
}

/** Every third page is zero, the others hold their number. */
export function stripes(blocks: readonly AnnouncedBlock[]): (sink: RamSink, writer: CheckpointWriter) => Promise<void> {
  return async (sink, writer) => {
    const page = Buffer.alloc(PAGE);
    for (const [index, { usedLength }] of blocks.entries()) {
      for (let at = 0; at < usedLength; at += PAGE) {
        if ((at / PAGE) % 3 === 2) sink.zero(index, at);
        else sink.page(index, at, stripe(page, index, at / PAGE), 0);
        if ((at / PAGE) % 64 === 63) await writer.drain();
      }
    }
  };
}

export function stripe(into: Buffer, block: number, page: number): Buffer {
  into.fill(0x11 + block);
  into.writeUInt32LE(page, 0);
  return into;
}
