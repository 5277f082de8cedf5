import type { EndFacts, VfioFacts } from './facts.ts';
import { about, byName, fail, type Judgement, pass, type Rule, warn } from './rule.ts';

const devices: Rule = {
  name: 'devices',
  doc: 'Both have the same devices plugged in, counted by type.',
  judge: about(
    (facts) => facts.devices,
    (source, destination) =>
      byName(
        source,
        destination,
        (type, here = 0, there = 0) => {
          const difference = `${type}: ${here} at the source, ${there} at the destination`;
          if (here > there) return fail(difference);
          return here < there ? warn(`${difference}: nothing fills the state of the others`) : undefined;
        },
        `${Object.values(source).reduce((sum, count) => sum + count, 0)} plugged in`,
      ),
  ),
};

const pci: Rule = {
  name: 'pci',
  doc: 'The same function is at each PCI address: sections in the stream are named by address.',
  judge: about(
    (facts) => facts.pci,
    (source, destination) =>
      byName(
        source,
        destination,
        (address, here, there) => {
          if (here === there) return undefined;
          if (there === undefined) return fail(`${address} (${here}) is at the source only`);
          if (here === undefined) return warn(`${address} (${there}) is at the destination only`);
          return fail(`${address}: ${here} at the source, ${there} at the destination`);
        },
        `${Object.keys(source).length} functions`,
      ),
  ),
};

const vfio: Rule = {
  name: 'vfio',
  doc: 'Each VFIO device has its counterpart at the same address, of the same instance id; with switchover-ack only those are waited for that have initial data at both ends.',
  judge: (source, destination) => {
    // An end that cannot be asked may have them all the same.
    if (source.vfio === undefined || destination.vfio === undefined) return [];
    if (source.vfio.length + destination.vfio.length === 0) return [];
    const waits = source.capabilities?.['switchover-ack'] === true;
    return byName(
      bySection(source.vfio),
      bySection(destination.vfio),
      (section, here, there) => judgeDevice(section, here, there, waits),
      `${source.vfio.length} devices`,
    );
  },
};

function judgeDevice(
  section: string,
  here: VfioFacts | undefined,
  there: VfioFacts | undefined,
  waits: boolean,
): Judgement | undefined {
  if (there === undefined) return fail(`${here?.name} (${section}) is at the source only`);
  if (here === undefined) return fail(`${there.name} (${section}) is at the destination only: its state never comes`);
  const [ours, theirs] = [here, there].map(({ precopy, initialData = precopy }) => initialData);
  if (!waits || ours === theirs) return undefined;
  const which = ours ? 'source' : 'destination';
  return warn(`${here.name} (${section}) has initial data at the ${which} only: switchover-ack does not wait for it`);
}

function bySection(list: readonly VfioFacts[]): Readonly<Record<string, VfioFacts>> {
  return Object.fromEntries(list.map((one) => [sectionKey(one), one]));
}

/** Of a device, as both ends name it. */
export function sectionKey({ section, instance = 0 }: Pick<VfioFacts, 'section' | 'instance'>): string {
  return instance === 0 ? section : `${section}/${instance}`;
}

/** Devices that switchover-ack waits for: those with initial data at both ends. Undefined: an end does not tell. */
export function preparedDevices(source: EndFacts, destination: EndFacts): ReadonlySet<string> | undefined {
  const told = [source, destination].every(({ vfio }) => vfio?.every(({ initialData }) => initialData !== undefined));
  if (!told) return undefined;
  const prepared = ({ vfio = [] }: EndFacts) => vfio.filter(({ initialData }) => initialData === true).map(sectionKey);
  const there = new Set(prepared(destination));
  return new Set(prepared(source).filter((section) => there.has(section)));
}

const downtime: Rule = {
  name: 'downtime',
  doc: 'What devices take to stop and to be loaded, as both ends reckon, is within downtime-limit, before a byte is sent.',
  judge: ({ stopMs = 0, parameters = {} }, { load }) => {
    const limit = parameters['downtime-limit'];
    if (load === undefined || typeof limit !== 'number') return [];
    const neededMs = Math.ceil(stopMs + load.ms);
    const amounts = `devices take ${neededMs} ms to stop and to be loaded, downtime-limit is ${limit} ms`;
    return [neededMs > limit ? warn(`${amounts}: as they are now the guest would not be stopped`) : pass(amounts)];
  },
};

export const DEVICE_RULES: readonly Rule[] = [devices, pci, vfio, downtime];
