/** The conductor: walk the stream, hold every device body against the stream's own description, and tell what was found. */
import { FerryError } from '../base/index.ts';
import {
  deviceSections,
  type MeasureDevice,
  parseVmdesc,
  type Vmdesc,
  type VmdescFault,
  VmdescIndex,
  type WalkedBody,
  walkBody,
} from '../wire/index.ts';
import { damageOf } from './damage.ts';
import { findDescription } from './find-description.ts';
import type { Damage, Report, ReportedDescription, ReportedSection } from './report.ts';
import { type ByteSource, readRange } from './source.ts';
import { StreamWalk } from './stream-walk.ts';

export interface Inspection {
  readonly report: Report;
  /** The stream's description of itself, as it was sent; undefined if it has none (or an empty one). */
  readonly description: string | undefined;
  /** The device sections (FULL) that `wanted` selects, in stream order, each with its bytes and, where the VMDESC tells, its fields. */
  devices(wanted?: (section: ReportedSection) => boolean): AsyncGenerator<InspectedDevice>;
}

export interface InspectedDevice {
  readonly section: ReportedSection;
  readonly body: Buffer;
  /** Offsets count from the start of the body. Undefined if the VMDESC does not describe the section or is wrong about it. */
  readonly fields: WalkedBody | undefined;
}

/** Explains the stream that begins at byte `offset` of the file. Throws only what the source throws: damage is a result. */
export async function inspect(source: ByteSource, options: { readonly offset?: number } = {}): Promise<Inspection> {
  const offset = options.offset ?? 0;
  const first = await attempt(source, offset);
  const lengths = first.damage === undefined ? undefined : await lengthsByDescription(source, first);
  const second = lengths === undefined ? undefined : await attempt(source, offset, lengths);
  const best = second !== undefined && knowsBetter(second, first) ? second : first;
  const { walk, vmdesc, damage } = best;

  const description: ReportedDescription | undefined = walk.description && {
    offset: walk.description.offset,
    bytes: walk.description.bytes,
    devices: vmdesc?.devices.length ?? 0,
    usedToSplit: best === second,
  };
  const report: Report = {
    file: source.name,
    fileBytes: source.size,
    streamOffset: offset,
    ...walk.report,
    ...(description !== undefined && { description }),
    ...(damage !== undefined && { damage }),
  };
  return {
    report,
    description: walk.description?.text || undefined,
    devices: (wanted = () => true) => devicesOf(source, walk, vmdesc, wanted),
  };
}

interface Attempt {
  readonly walk: StreamWalk;
  readonly vmdesc: Vmdesc | undefined;
  /** Of the stream, else of the first device that is not as described. */
  readonly damage: Damage | undefined;
}

async function attempt(source: ByteSource, offset: number, measureDevice?: MeasureDevice): Promise<Attempt> {
  const walk = new StreamWalk(source, offset, measureDevice);
  await walk.run();
  let vmdesc: Vmdesc | undefined;
  let damage = walk.damage;
  if (walk.description !== undefined && walk.description.text !== '') {
    try {
      vmdesc = parseVmdesc(walk.description.text);
    } catch (thrown) {
      damage ??= descriptionDamage(thrown, walk.description.offset);
    }
  }
  if (vmdesc !== undefined) damage ??= await checkDevices(source, walk, vmdesc);
  return { walk, vmdesc, damage };
}

/** What the description tells apart is nearer to the place where things go wrong than what footers tell apart, never further. */
function knowsBetter({ damage }: Attempt, first: Attempt): boolean {
  return damage === undefined || (first.damage !== undefined && damage.offset < first.damage.offset);
}

function descriptionDamage(thrown: unknown, offset: number): Damage {
  if (!(thrown instanceof FerryError)) throw thrown;
  const fault = thrown.fault as VmdescFault;
  const expected = fault.code === 'VMDESC_UNEXPECTED_VALUE' ? `${fault.expected} at ${fault.path}` : 'JSON';
  return { offset, path: 'description', expected, found: 'something else', code: fault.code, message: thrown.message };
}

/** Notes for every device section how it compares with the description; returns the first that is wrong. */
async function checkDevices(source: ByteSource, walk: StreamWalk, vmdesc: Vmdesc): Promise<Damage | undefined> {
  const index = new VmdescIndex(vmdesc);
  let damage: Damage | undefined;
  for (const section of walk.sections) {
    if (section.kind !== 'full') continue;
    const device = index.find(section);
    if (device === undefined) {
      section.described = 'not at all';
      continue;
    }
    try {
      walkBody(device, await bodyOf(source, section), source.name, section.bodyOffset);
      section.described = 'exactly';
    } catch (thrown) {
      damage ??= damageOf(thrown);
      section.described = 'wrongly';
    }
  }
  return damage;
}

async function* devicesOf(
  source: ByteSource,
  walk: StreamWalk,
  vmdesc: Vmdesc | undefined,
  wanted: (section: ReportedSection) => boolean,
): AsyncGenerator<InspectedDevice> {
  const index = vmdesc && new VmdescIndex(vmdesc);
  for (const section of walk.sections) {
    if (section.kind !== 'full' || !wanted(section)) continue;
    const body = await bodyOf(source, section);
    const device = section.described === 'exactly' ? index?.find(section) : undefined;
    yield { section, body, fields: device && walkBody(device, body, source.name, section.bodyOffset) };
  }
}

function bodyOf(source: ByteSource, section: ReportedSection): Promise<Buffer> {
  return readRange(source, section.bodyOffset ?? 0, section.bodyBytes ?? 0);
}

/**
 * Guest memory in a device section may look like a footer and the next section, and damage may hide the real ones. The description knows
 * better: lengths of the device sections that follow the last iterable one, as far as it fits them.
 */
async function lengthsByDescription(source: ByteSource, { walk }: Attempt): Promise<MeasureDevice | undefined> {
  const start = walk.sections.findLast((section, i, all) => section.kind === 'full' && all[i - 1]?.kind !== 'full');
  if (start === undefined || walk.sections.at(-1)?.kind !== 'full') return undefined;
  const description = walk.description ?? (await findDescription(source));
  if (description === undefined || description.offset <= start.offset) return undefined;
  const bytes = await readRange(source, start.offset, description.offset - start.offset);
  const lengths = new Map<string, number>();
  const key = ({ idstr, instance }: { idstr: string; instance: number }) => `${instance}/${idstr}`;
  try {
    for (const { section, bodyLength } of deviceSections(bytes, parseVmdesc(description.text), start.offset)) {
      lengths.set(key(section), bodyLength);
    }
  } catch (thrown) {
    // The second attempt will tell, from there on by footers again.
    if (!(thrown instanceof FerryError)) throw thrown;
  }
  return (section) => lengths.get(key(section));
}
