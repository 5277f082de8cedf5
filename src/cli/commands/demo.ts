import type { Command } from 'commander';
import type { Assignments } from '../../settings/index.ts';
import { isGood, runDemo, type Trip } from '../demo/demo.ts';
import { count, examples, jsonOption, positive, ramOption, rateOption, setOption, settingsOf } from '../options.ts';
import { perform } from '../perform.ts';
import { tripLine, tripsTable, tripText } from '../render/demo.ts';
import { outcomeFacts, outcomeText } from '../render/outcome.ts';

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
    .option('--rounds <count>', 'migrations, to and fro', positive, 1)
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

function tripFacts({ outcome, guestDowntimeMs, verification }: Trip): object {
  return { ...outcomeFacts(outcome), guestDowntimeMs, verification };
}
