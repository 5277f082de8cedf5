import { isVersionBefore } from '../../settings/index.ts';
import type { BlockFacts, EndFacts } from './facts.ts';
import { about, byName, fail, type Judgement, pass, programOf, type Rule, warn } from './rule.ts';

/** States of a migration that is not under way. */
const AT_REST: ReadonlySet<string> = new Set(['none', 'completed', 'failed', 'cancelled']);
/** Models that mean what the host has. */
const HOST_MODEL = /^(host|max)(-|$)/;

const sourceState: Rule = {
  name: 'source',
  doc: 'The source has a guest, no other migration runs, and nothing forbids one.',
  judge: ({ runState, migration = 'none', blocked = [] }) => [
    ...(runState === 'inmigrate' ? [fail('it waits for a migration itself: it has no guest to send')] : []),
    ...(runState === 'postmigrate' ? [fail('its guest has been migrated already')] : []),
    ...(AT_REST.has(migration) ? [] : [fail(`a migration is under way already (${migration})`)]),
    ...blocked.map((reason) => fail(`it forbids a migration: ${reason}`)),
    ...(ready(runState, migration) && blocked.length === 0 ? [pass(`its guest is ${runState}`)] : []),
  ],
};

function ready(runState: string | undefined, migration: string): boolean {
  return runState !== undefined && !['inmigrate', 'postmigrate'].includes(runState) && AT_REST.has(migration);
}

/** 8.2 and older wake the guest to send it, and let the clock of one that arrives asleep stand: no wake-up brings it to (seen with 7.2). */
const SLEEPERS_SINCE = '9.0';

const sleep: Rule = {
  name: 'sleep',
  doc: `A guest that sleeps (ACPI S3) sleeps on, and can be woken, where it arrives: from QEMU ${SLEEPERS_SINCE} on.`,
  judge: ({ runState, program: here }, { program: there }) => {
    if (runState !== 'suspended') return [];
    const isOld = (program: EndFacts['program']) =>
      program !== undefined && isVersionBefore(program.version, SLEEPERS_SINCE);
    if (isOld(there))
      return [fail(`its guest sleeps, and ${there?.name} cannot wake one that arrives so: wake it first`)];
    return [isOld(here) ? warn(`its guest sleeps: ${here?.name} wakes it to send it`) : pass('its guest sleeps on')];
  },
};

const destinationState: Rule = {
  name: 'destination',
  doc: 'The destination waits for a migration that has not begun.',
  judge: (_, { runState, migration = 'none' }) => {
    if (runState === undefined) return [];
    if (runState !== 'inmigrate')
      return [fail(`it must wait for a migration (-incoming defer), but its guest is ${runState}`)];
    if (migration === 'failed') return [fail('its incoming migration has failed: start it again')];
    return [migration === 'active' ? fail('its migration has begun already') : pass('it waits for a migration')];
  },
};

const version: Rule = {
  name: 'version',
  doc: 'QEMU promises the way from an older to a newer version; back only what the older knows can be sent.',
  judge: about(
    ({ program }) => program,
    (source, destination) => {
      const way = `${source.name} to ${destination.name}`;
      return isVersionBefore(destination.version, source.version)
        ? [warn(`${way}: back to an older version, which works only as far as that knows what is sent`)]
        : [pass(way)];
    },
  ),
};

const machineType: Rule = {
  name: 'machine type',
  doc: 'Both have the same machine type, version and all.',
  judge: about(
    (facts) => facts.machineType,
    (source, destination) =>
      source === destination
        ? [pass(source)]
        : [fail(`${source} at the source, ${destination} at the destination: start it with -machine ${source}`)],
  ),
};

const uuid: Rule = {
  name: 'uuid',
  doc: 'UUIDs of the machines are compared by validate-uuid, and by the channels of multifd.',
  judge: (source, destination) => {
    if (source.uuid === destination.uuid) return source.uuid === undefined ? [] : [pass(source.uuid)];
    const difference = `${source.uuid ?? 'none'} at the source, ${destination.uuid ?? 'none'} at the destination`;
    const compared = ['validate-uuid', 'multifd'].filter((name) => source.capabilities?.[name] === true);
    // A source that has none sends none, and a destination that has none takes any.
    const both = source.uuid !== undefined && destination.uuid !== undefined;
    const refused = compared.filter((name) => name === 'multifd' || both);
    return [refused.length > 0 ? fail(`${difference} (compared by ${refused.join(' and ')})`) : warn(difference)];
  },
};

const memory: Rule = {
  name: 'memory',
  doc: 'Every block of RAM of the source is at the destination, as large; those of ROMs and tables may be resized if there is room.',
  judge: about(
    ({ ram }) => ram && Object.fromEntries(ram.map((block) => [block.name, block])),
    (source, destination, ends) => {
      const bytes = Object.values(source).reduce((sum, { used }) => sum + used, 0);
      const fits = `${Object.keys(source).length} blocks, ${bytes} bytes`;
      const postcopy = ends.source.capabilities?.['postcopy-ram'] === true;
      return byName(source, destination, (name, a, b) => judgeBlock(name, a, b, postcopy), fits);
    },
  ),
};

function judgeBlock(
  name: string,
  source: BlockFacts | undefined,
  destination: BlockFacts | undefined,
  postcopy: boolean,
): Judgement | undefined {
  if (destination === undefined) return fail(`block '${name}' of ${source?.used} bytes is at the source only`);
  if (source === undefined) return warn(`block '${name}' of ${destination.used} bytes is at the destination only`);
  const resizable = destination.max > destination.used;
  if (source.used !== destination.used && !(resizable && source.used <= destination.max))
    return fail(`block '${name}': ${source.used} bytes at the source, ${destination.used} at the destination`);
  if (postcopy && source.pageSize !== destination.pageSize)
    return fail(
      `block '${name}': pages of ${source.pageSize} bytes at the source, of ${destination.pageSize} at the destination, which postcopy-ram does not allow`,
    );
  return undefined;
}

const cpus: Rule = {
  name: 'cpus',
  doc: 'Both have as many vCPUs, of the same model.',
  judge: about(
    (facts) => facts.cpus,
    (source, destination) => {
      if (source.count !== destination.count)
        return [fail(`${source.count} vCPUs at the source, ${destination.count} at the destination`)];
      const [a, b] = [source.model, destination.model];
      if (a !== b)
        return [
          fail(
            `model ${a ?? 'unknown'} at the source, ${b ?? 'unknown'} at the destination: the guest would meet another CPU`,
          ),
        ];
      const all = `${source.count} of ${a ?? 'no model'}`;
      return a !== undefined && HOST_MODEL.test(a)
        ? [warn(`${all}: the same only if both hosts have the same CPU`)]
        : [pass(all)];
    },
  ),
};

const accelerator: Rule = {
  name: 'accelerator',
  doc: 'The same runs the vCPUs of both; QEMU before 8.0 without KVM loses stores of several vCPUs when it migrates.',
  judge: (source, destination) => {
    const [a, b] = [source.cpus?.accelerator, destination.cpus?.accelerator];
    const found: Judgement[] = [];
    if (a !== undefined && b !== undefined && a !== b)
      found.push(warn(`${a} at the source, ${b} at the destination: state that only one of them has is lost`));
    if (a === 'tcg' && (source.cpus?.count ?? 1) > 1 && isOldQemu(source))
      found.push(warn(`${programOf(source, 'the source')} without KVM loses stores of several vCPUs when it migrates`));
    return found;
  },
};

function isOldQemu({ program }: EndFacts): boolean {
  return program !== undefined && isVersionBefore(program.version, '8.0');
}

const hostMemory: Rule = {
  name: 'host memory',
  doc: "The destination's host has as much free memory as the machine.",
  judge: ({ ram }, { freeMemory }) => {
    if (ram === undefined || freeMemory === undefined) return [];
    const bytes = ram.reduce((sum, { used }) => sum + used, 0);
    const amounts = `${freeMemory} bytes free at the destination, the machine has ${bytes}`;
    return [freeMemory < bytes ? warn(amounts) : pass(amounts)];
  },
};

const hostDisk: Rule = {
  name: 'host disk',
  doc: "The file system of a destination's checkpoint has room for all of the machine: pages that are zero now need not stay so.",
  judge: ({ ram, vfio = [] }, { freeDisk }) => {
    if (ram === undefined || freeDisk === undefined) return [];
    const sizes = [...ram.map(({ used }) => used), ...vfio.map(({ stateBytes = 0 }) => stateBytes)];
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    const amounts = `${freeDisk} bytes free at the destination, the machine may need ${bytes}`;
    return [freeDisk < bytes ? fail(amounts) : pass(amounts)];
  },
};

const limits: Rule = {
  name: 'limits',
  doc: 'Nothing that the source sends is larger, or more, than the destination takes.',
  judge: about(
    (facts) => facts.limits,
    (source, destination, ends) => {
      const multifd = ends.source.capabilities?.['multifd'] === true;
      const devices = ends.source.vfio ?? [];
      const sent: readonly [what: string, most: number, taken: number][] = [
        ['bytes of pages in a multifd packet', multifd ? source.packetBytes : 0, destination.packetBytes],
        [
          'bytes in a buffer of device state',
          multifd && devices.length > 0 ? source.bufferBytes : 0,
          destination.bufferBytes,
        ],
        ['blocks of RAM', ends.source.ram?.length ?? 0, destination.blocks],
      ];
      const over = sent.filter(([, most, taken]) => most > taken);
      if (over.length === 0) return [pass('what is sent is taken')];
      return over.map(([what, most, taken]) =>
        fail(`${what}: the source sends ${most}, the destination takes ${taken}`),
      );
    },
  ),
};

export const MACHINE_RULES: readonly Rule[] = [
  sourceState,
  destinationState,
  sleep,
  version,
  machineType,
  uuid,
  memory,
  cpus,
  accelerator,
  hostMemory,
  hostDisk,
  limits,
];
