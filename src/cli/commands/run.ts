import { type Command, InvalidArgumentError, Option } from 'commander';
import { PATTERNS, type Pattern, WORKLOAD_DEFAULTS } from '../../machine/index.ts';
import { ownTls } from '../../porcelain/index.ts';
import type { Assignments, CompatOverrides, ObjectOptions } from '../../settings/index.ts';
import { addDeviceOptions, type DeviceFlags, devicesOf } from '../device-option.ts';
import {
  compatOption,
  count,
  engineSettings,
  examples,
  fraction,
  jsonOption,
  objectOption,
  ramOption,
  rateOption,
  setOption,
  settingsOf,
  size,
  uri,
  uuid,
} from '../options.ts';
import { perform } from '../perform.ts';
import { runMachine } from '../run/run-machine.ts';

interface RunFlags extends DeviceFlags {
  readonly qmp: string;
  readonly machine: string;
  readonly ram: number;
  readonly vcpus: number;
  readonly dirtyRate: number | 'max';
  readonly pattern: Pattern;
  readonly seed: number;
  readonly fill: number;
  readonly hostPage: number;
  readonly uuid?: Uint8Array;
  readonly incoming?: string;
  readonly prealloc?: boolean;
  readonly paused?: boolean;
  readonly object?: readonly ObjectOptions[];
  readonly set?: Assignments;
  readonly compat?: CompatOverrides;
  readonly json?: boolean;
}

export function addRun(program: Command): void {
  const command = program
    .command('run')
    .summary('a process with the embedded machine')
    .description(
      'Runs the embedded machine: vCPUs that read and write guest memory by a program whose every effect can be verified. The process is ' +
        'driven over QMP as a QEMU is, and ends with the QMP command quit or Ctrl-C.',
    )
    .requiredOption('--qmp <path>', 'unix socket for QMP')
    .option(
      '--machine <type>',
      'workload, or workload-X.Y to speak as that version of QEMU',
      machineType,
      WORKLOAD_DEFAULTS.machineType,
    )
    .addOption(ramOption())
    .option('--vcpus <count>', 'vCPUs, each of them a thread', count, 2)
    .addOption(rateOption())
    .addOption(
      new Option('--pattern <name>', 'which pages it writes').choices(PATTERNS).default(WORKLOAD_DEFAULTS.pattern),
    )
    .option('--seed <number>', 'of the program', count, WORKLOAD_DEFAULTS.seed)
    .option(
      '--fill <share>',
      'share of the pages that are not zero in the beginning, 0 to 1',
      fraction,
      WORKLOAD_DEFAULTS.fill,
    )
    .option(
      '--host-page <size>',
      'pages of its memory on the host, the unit of postcopy: 4K, 2M or 1G',
      size,
      WORKLOAD_DEFAULTS.hostPage,
    )
    .option('--uuid <uuid>', 'of the machine', uuid)
    .option(
      '--incoming <uri>',
      'wait for a migration at this URI, or defer: until the QMP command migrate-incoming',
      incoming,
    )
    .option('--prealloc', 'with --incoming: take all memory now, so that no page fault slows the migration')
    .option('--paused', 'do not start the guest; the QMP command cont does')
    .addOption(objectOption())
    .addOption(setOption('migration capability or parameter'))
    .addOption(compatOption())
    .addOption(jsonOption())
    .action((flags: RunFlags) => run(flags));
  addDeviceOptions(command);
  examples(command, [
    'run --qmp a.sock',
    'run --qmp a.sock --ram 4G --vcpus 4 --dirty-rate 300M --pattern uniform',
    'run --qmp b.sock --ram 4G --vcpus 4 --incoming defer',
    'run --qmp a.sock --vf 4,preset=vf-100m --device vfio-user,socket=vf.sock',
    'run --qmp b.sock --incoming tcp:127.0.0.1:4444 --machine workload-7.2',
    'run --qmp b.sock --incoming defer --object tls-creds-psk,id=tls0,endpoint=server,dir=keys --set tls-creds=tls0',
  ]);
}

function run({
  qmp,
  machine: machineType,
  set,
  compat,
  incoming: at,
  paused,
  prealloc = false,
  ...flags
}: RunFlags): Promise<void> {
  const { ram, vcpus, dirtyRate, pattern, seed, fill, hostPage, uuid: id } = flags;
  return perform(flags, async ({ signal, reporter }) => ({
    outcome: await runMachine({
      machine: {
        machineType,
        ram,
        vcpus,
        dirtyRate,
        pattern,
        seed,
        fill,
        hostPage,
        prealloc,
        ...(id === undefined ? {} : { uuid: id }),
      },
      devices: devicesOf(flags),
      settings: engineSettings(settingsOf(set), { machineType, compat }),
      objects: ownTls(undefined, 'server', flags.object).objects,
      qmp,
      incoming: at,
      paused: paused === true,
      signal,
      ready: (facts) =>
        reporter.event(
          'ready',
          facts,
          `QMP at ${facts.qmp}${facts.uri === undefined ? '' : `, listening at ${facts.uri}`}`,
        ),
    }),
  }));
}

function machineType(text: string): string {
  if (text === 'workload') return WORKLOAD_DEFAULTS.machineType;
  if (!/^workload-\d{1,2}\.\d{1,2}$/.test(text)) throw new InvalidArgumentError('workload or workload-X.Y is wanted.');
  return text;
}

function incoming(text: string): string {
  return text === 'defer' ? text : uri(text);
}
