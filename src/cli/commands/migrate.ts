import { type Command, Option } from 'commander';
import { migrate } from '../../porcelain/index.ts';
import type { Assignments } from '../../settings/index.ts';
import { count, examples, jsonOption, listenOption, setOption, settingsOf } from '../options.ts';
import { perform } from '../perform.ts';

interface MigrateFlags {
  readonly uri?: string;
  readonly set?: Assignments;
  readonly check: boolean;
  readonly postcopy?: number;
  readonly json?: boolean;
}

/** The peers read it, not we: what they know beyond our own transports is theirs. */
const URI = /^(tcp|unix|fd|exec|file|vsock|rdma):/;

export function addMigrate(program: Command): void {
  const command = program
    .command('migrate')
    .summary('move a running machine between two processes')
    .description(
      'Moves a machine between any two processes, QEMU or vmferry, over their QMP sockets. Ctrl-C cancels; with --postcopy only until the guest ' +
        'runs on the destination. A connection that breaks after that is made anew. Whatever happens, the guest ' +
        'runs on at most one side, and the last line says on which.',
    )
    .argument('<source-qmp>', 'QMP socket of the process that has the machine')
    .argument('<destination>', 'QMP socket of a process in -incoming defer, or a migration URI')
    .addOption(listenOption('where the destination shall listen'))
    .addOption(setOption('migration capability or parameter; what must match is set on both sides'))
    .option('--no-check', 'do not compare the two ends first (see vmferry check)')
    .addOption(
      new Option(
        '--postcopy [rounds]',
        'after so many rounds (default 1; 0: at once) let the guest run on the destination; the rest of its memory follows as it is wanted',
      )
        .argParser(count)
        .preset('1'),
    )
    .addOption(jsonOption())
    .action((source: string, destination: string, flags: MigrateFlags) => {
      if (!URI.test(destination)) return run(source, { qmp: destination, uri: flags.uri }, flags);
      if (flags.uri !== undefined) command.error('error: --uri is for a destination that is given by its QMP socket');
      return run(source, { uri: destination }, flags);
    });
  examples(command, [
    'migrate a.sock b.sock',
    'migrate a.sock b.sock --uri tcp:127.0.0.1:0 --set max-bandwidth=1G --set downtime-limit=100',
    'migrate a.sock tcp:198.51.100.7:4444 --set auto-converge=on',
    'migrate a.sock b.sock --postcopy --set postcopy-preempt=on',
    'migrate a.sock b.sock --postcopy=0  # the guest moves at once',
    'migrate a.sock b.sock --json',
  ]);
}

function run(
  source: string,
  destination: Parameters<typeof migrate>[0]['destination'],
  flags: MigrateFlags,
): Promise<void> {
  return perform(flags, async ({ signal, reporter }) => ({
    outcome: await migrate({
      source,
      destination,
      settings: settingsOf(flags.set),
      unchecked: !flags.check,
      warn: ({ rule, reason }) => reporter.event('warning', { rule, reason }, `warning: ${rule}: ${reason}`),
      postcopy:
        flags.postcopy === undefined
          ? undefined
          : { afterRounds: flags.postcopy, notice: (text) => reporter.event('notice', { text }, text) },
      signal,
      progress: (progress) => reporter.progress(progress),
    }),
  }));
}
