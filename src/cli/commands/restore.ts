import type { Command } from 'commander';
import { restore } from '../../porcelain/index.ts';
import type { Assignments } from '../../settings/index.ts';
import { examples, jsonOption, listenOption, postcopyOption, setOption, settingsOf, withPostcopy } from '../options.ts';
import { perform } from '../perform.ts';
import { addTlsOptions, type TlsFlags, tlsChoice } from '../tls-options.ts';

interface RestoreFlags extends TlsFlags {
  readonly paused?: boolean;
  readonly postcopy?: boolean;
  readonly uri?: string;
  readonly set?: Assignments;
  readonly json?: boolean;
}

export function addRestore(program: Command): void {
  const command = program
    .command('restore')
    .summary('put the machine of a checkpoint into a process')
    .description(
      'Puts the machine of a checkpoint (or of a mapped-ram file that QEMU wrote) into a process, QEMU or vmferry, that was started with ' +
        'the same machine and -incoming defer. The guest goes on where it was saved. The checkpoint stays as it is.',
    )
    .argument('<file>', 'the checkpoint')
    .argument('<qmp>', 'QMP socket of the process')
    .option('--paused', 'leave the guest paused')
    .addOption(postcopyOption())
    .addOption(listenOption('where the process shall listen'))
    .addOption(setOption('migration capability or parameter (max-bandwidth is unlimited here unless set)'))
    .addOption(jsonOption())
    .action((file: string, qmp: string, flags: RestoreFlags) =>
      perform(flags, async ({ signal, reporter }) => ({
        outcome: await restore({
          file,
          qmp,
          uri: flags.uri,
          paused: flags.paused === true,
          postcopy: flags.postcopy,
          settings: withPostcopy(settingsOf(flags.set), flags.postcopy),
          tls: tlsChoice(flags),
          signal,
          notice: (text) => reporter.event('notice', { text }, text),
          progress: (progress) => reporter.progress(progress),
        }),
      })),
    );
  addTlsOptions(command, 'both');
  examples(command, [
    'restore vm.ckpt qmp.sock',
    'restore vm.ckpt qmp.sock --paused',
    'restore vm.ckpt qmp.sock --postcopy    # the guest runs at once, its memory follows',
    'restore vm.ckpt qmp.sock --uri tcp:127.0.0.1:0    # QEMU runs as another user',
  ]);
}
