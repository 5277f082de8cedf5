import type { Command } from 'commander';
import type { Assignments } from '../../settings/index.ts';
import { isGood, runDemo, type Trip } from '../demo/demo.ts';
import { count, examples, jsonOption, ramOption, rateOption, setOption, settingsOf } from '../options.ts';
import { perform } from '../perform.ts';
import { tripsTable, tripText } from '../render/demo.ts';
import { outcomeFacts } from '../render/outcome.ts';

interface DemoFlags {
  readonly ram: number;
  readonly vcpus: number;
  readonly dirtyRate: number | 'max';
  readonly rounds: number;
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
    .option('--rounds <count>', 'migrations, to and fro', count, 1)
    .addOption(setOption('migration capability or parameter (max-bandwidth is unlimited here unless set)'))
    .addOption(jsonOption())
    .action((flags: DemoFlags) => demo(flags));
  examples(command, [
    'demo',
    'demo --ram 4G --dirty-rate 300M --rounds 20',
    'demo --set auto-converge=on --set max-bandwidth=100M',
    'demo --ram 64M --json',
  ]);
}

function demo(flags: DemoFlags): Promise<void> {
  const machine = [`--ram=${flags.ram}`, `--vcpus=${flags.vcpus}`, `--dirty-rate=${flags.dirtyRate}`];
  const settings = settingsOf(flags.set, { 'max-bandwidth': 0 });
  return perform(flags, async ({ signal, reporter }) => {
    const trips = await runDemo({
      machine,
      rounds: Math.max(flags.rounds, 1),
      settings,
      signal,
      progress: (progress) => reporter.progress(progress),
      moved: (trip) => reporter.event('migration', tripFacts(trip), tripText(trip)),
    });
    const last = trips.at(-1) as Trip;
    const wrong = last.outcome.status === 'completed' && !isGood(last);
    return {
      outcome: wrong
        ? { ...last.outcome, status: 'failed', error: new Error('the verification failed') }
        : last.outcome,
      facts: { migrations: trips.length, ...tripFacts(last) },
      text: trips.length > 1 ? tripsTable(trips) : `${last.outcome.status}\n`,
    };
  });
}

function tripFacts({ outcome, guestDowntimeMs, verification }: Trip): object {
  return { ...outcomeFacts(outcome), guestDowntimeMs, verification };
}
