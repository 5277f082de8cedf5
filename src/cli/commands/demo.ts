import { type Command, Option } from 'commander';
import type { Assignments, CapabilityName } from '../../settings/index.ts';
import { VF_PRESETS, type VfPreset } from '../../vfio/index.ts';
import { isGood, runDemo, type Trip } from '../demo/demo.ts';
import { vfs, withPreset } from '../device-option.ts';
import { count, examples, jsonOption, positive, ramOption, rateOption, setOption, settingsOf } from '../options.ts';
import { perform } from '../perform.ts';
import { tripLine, tripsTable, tripText } from '../render/demo.ts';
import { outcomeFacts, outcomeText } from '../render/outcome.ts';
import { timelineFacts } from '../render/timeline.ts';

interface DemoFlags {
  readonly ram: number;
  readonly vcpus: number;
  readonly dirtyRate: number | 'max';
  readonly rounds: number;
  readonly vf?: string;
  readonly vfPreset: VfPreset;
  readonly channels?: number;
  readonly set?: Assignments;
  readonly json?: boolean;
}

export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .summary('two processes and a live migration between them')
    .description(
      'Starts two `run` processes, moves the running machine from one to the other over tcp on this host, and verifies every page and ' +
        'register on the other side. Nothing is left behind.',
    )
    .addOption(ramOption())
    .option('--vcpus <count>', 'vCPUs, each of them a thread', count, 2)
    .addOption(rateOption())
    .option('--vf <count>', 'emulated VFs, with NAME=VALUE behind commas as in run; shows what each of them did', vfs)
    .addOption(
      new Option('--vf-preset <name>', 'what they are like')
        .choices(Object.keys(VF_PRESETS))
        .default('vf-100m-precopy' satisfies VfPreset),
    )
    .option('--channels <count>', 'parallel channels (multifd); 0 is none (default: 2 with --vf, else 0)', count)
    .option('--rounds <count>', 'migrations, to and fro', positive, 1)
    .addOption(setOption('migration capability or parameter (max-bandwidth is unlimited here unless set)'))
    .addOption(jsonOption())
    .action((flags: DemoFlags) => demo(flags));
  examples(command, [
    'demo',
    'demo --ram 4G --dirty-rate 300M --rounds 20',
    'demo --vf 4',
    'demo --vf 8 --vf-preset vf-100m --channels 4',
    'demo --set auto-converge=on --set max-bandwidth=100M',
    'demo --ram 64M --json',
  ]);
}

/** Devices that are read only when they stand make the guest wait longer than the usual limit allows, ms. */
const DOWNTIME_LIMIT_WITH_VFS = 5_000;

function demo(flags: DemoFlags): Promise<void> {
  const { vf, vfPreset, channels = vf === undefined ? 0 : 2 } = flags;
  const machine = [`--ram=${flags.ram}`, `--vcpus=${flags.vcpus}`, `--dirty-rate=${flags.dirtyRate}`];
  if (vf !== undefined) machine.push(`--vf=${withPreset(vf, vfPreset)}`);
  const { capabilities, parameters } = settingsOf(flags.set, {
    'max-bandwidth': 0,
    ...(vf === undefined ? {} : { 'downtime-limit': DOWNTIME_LIMIT_WITH_VFS }),
    ...(channels === 0 ? {} : { 'multifd-channels': channels }),
  });
  const on: CapabilityName[] = [];
  if (channels > 0) on.push('multifd');
  if (vf !== undefined) on.push('return-path', 'switchover-ack');
  const settings: Assignments = {
    capabilities: [...on.map((capability) => ({ capability, state: true })), ...capabilities],
    parameters,
  };
  return perform(flags, async ({ signal, reporter }) => {
    const trips = await runDemo({
      machine,
      rounds: flags.rounds,
      settings,
      signal,
      progress: (progress) => reporter.progress(progress),
      moved: (trip, number) => reporter.event('migration', tripFacts(trip), tripLine(trip, number, flags.rounds)),
    });
    const last = trips.at(-1) as Trip;
    const wrong = last.outcome.status === 'completed' && !isGood(last);
    return {
      outcome: wrong
        ? { ...last.outcome, status: 'failed', error: new Error('the verification failed') }
        : last.outcome,
      facts: { migrations: trips.length, ...tripFacts(last) },
      text: trips.length > 1 ? tripsTable(trips) : outcomeText(last.outcome, tripText(last)),
    };
  });
}

function tripFacts({ outcome, guestDowntimeMs, verification, devices }: Trip): object {
  return { ...outcomeFacts(outcome), guestDowntimeMs, verification, devices: devices && timelineFacts(devices) };
}
