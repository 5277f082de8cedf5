import type { Command } from 'commander';
import { checkEnds } from '../../porcelain/index.ts';
import { examples, jsonOption } from '../options.ts';
import { perform } from '../perform.ts';
import { findingsText } from '../render/findings.ts';

export function addCheck(program: Command): void {
  const command = program
    .command('check')
    .summary('whether a machine can be moved between two processes')
    .description(
      'Compares two processes, QEMU or vmferry, over their QMP sockets: versions, machine type, settings as they are now, memory, CPUs, devices. ' +
        'A line for each thing that was looked at: Pass, Warn (it may not go well, or the guest may notice; of two vmferrys also ' +
        'what they differ in and would settle) or Fail (it will not). Nothing is ' +
        'changed. `migrate` does the same first, with the settings that it makes.',
    )
    .argument('<source-qmp>', 'QMP socket of the process that has the machine')
    .argument('<destination-qmp>', 'QMP socket of a process in -incoming defer')
    .addOption(jsonOption())
    .action((source: string, destination: string, flags: { readonly json?: boolean }) =>
      perform(flags, async ({ signal }) => {
        const { outcome, findings } = await checkEnds({ source, destination, signal });
        return { outcome, facts: { findings }, text: findingsText(findings) };
      }),
    );
  examples(command, ['check a.sock b.sock', 'check a.sock b.sock --json']);
}
