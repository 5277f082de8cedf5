import type { Command } from 'commander';
import { save } from '../../porcelain/index.ts';
import type { Assignments } from '../../settings/index.ts';
import { examples, jsonOption, listenOption, setOption, settingsOf } from '../options.ts';
import { perform } from '../perform.ts';
import { addTlsOptions, type TlsFlags, tlsChoice } from '../tls-options.ts';

interface SaveFlags extends TlsFlags {
  readonly resume?: boolean;
  readonly uri?: string;
  readonly set?: Assignments;
  readonly json?: boolean;
}

export function addSave(program: Command): void {
  const command = program
    .command('save')
    .summary('save a running machine to a checkpoint')
    .description(
      'Saves the machine of a process, QEMU or vmferry, to a checkpoint, live: the guest runs on until the last moment. Then it is stopped, ' +
        'or runs on with --resume. If anything fails there is no file, and the guest runs on.',
    )
    .argument('<qmp>', 'QMP socket of the process that has the machine')
    .argument('<file>', 'the checkpoint')
    .option('--resume', 'let the guest run on once it is saved')
    .addOption(listenOption('where to wait for the machine'))
    .addOption(
      setOption('migration capability or parameter, put back afterwards (max-bandwidth is unlimited here unless set)'),
    )
    .addOption(jsonOption())
    .action((qmp: string, file: string, flags: SaveFlags) =>
      perform(flags, async ({ signal, reporter }) => ({
        outcome: await save({
          qmp,
          file,
          uri: flags.uri,
          resume: flags.resume === true,
          settings: settingsOf(flags.set),
          tls: tlsChoice(flags),
          signal,
          progress: (progress) => reporter.progress(progress),
        }),
      })),
    );
  addTlsOptions(command, 'both');
  examples(command, [
    'save qmp.sock vm.ckpt',
    'save qmp.sock vm.ckpt --resume --set max-bandwidth=500M',
    'save qmp.sock vm.ckpt --uri tcp:127.0.0.1:0    # QEMU runs as another user',
  ]);
}
