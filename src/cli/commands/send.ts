import type { Command } from 'commander';
import { ownTls, send } from '../../porcelain/index.ts';
import type { Assignments, CompatOverrides, ObjectOptions } from '../../settings/index.ts';
import {
  compatOption,
  engineSettings,
  examples,
  jsonOption,
  objectOption,
  postcopyOption,
  qmpOption,
  setOption,
  settingsOf,
  uri,
  withPostcopy,
} from '../options.ts';
import { perform } from '../perform.ts';
import { serveQmp } from '../serve-qmp.ts';
import { addTlsOptions, type TlsFlags, tlsChoice } from '../tls-options.ts';

interface SendFlags extends TlsFlags {
  readonly object?: readonly ObjectOptions[];
  readonly postcopy?: boolean;
  readonly qmp?: string;
  readonly set?: Assignments;
  readonly compat?: CompatOverrides;
  readonly json?: boolean;
}

export function addSend(program: Command): void {
  const command = program
    .command('send')
    .summary('send the machine of a checkpoint')
    .description(
      'The source of a migration whose destination somebody else started: sends the machine of a checkpoint (or of a mapped-ram file that ' +
        'QEMU wrote) to a URI. For a process with a QMP socket, `restore` does both ends.',
    )
    .argument('<file>', 'the checkpoint')
    .argument('<uri>', 'where the destination listens: tcp:HOST:PORT, unix:PATH, fd:N, exec:COMMAND, file:PATH', uri)
    .addOption(postcopyOption())
    .addOption(qmpOption())
    .addOption(setOption('migration capability or parameter (max-bandwidth is unlimited here unless set)'))
    .addOption(compatOption())
    .addOption(jsonOption())
    .action((file: string, to: string, flags: SendFlags) =>
      perform(flags, async ({ signal, reporter }) => {
        const { objects, parameters } = ownTls(tlsChoice(flags), 'client', flags.object);
        const set = settingsOf(flags.set, { 'max-bandwidth': 0, ...parameters });
        return {
          outcome: await send({
            file,
            uri: to,
            settings: engineSettings(withPostcopy(set, flags.postcopy), { compat: flags.compat }),
            objects,
            postcopy: flags.postcopy,
            signal,
            progress: (progress) => reporter.progress(progress),
            serve: serveQmp(flags.qmp),
          }),
        };
      }),
    );
  addTlsOptions(command, 'client').addOption(objectOption());
  examples(command, [
    'send vm.ckpt tcp:127.0.0.1:4444',
    'send vm.ckpt tcp:127.0.0.1:4444 --postcopy --set postcopy-preempt=on',
    'send vm.ckpt tcp:198.51.100.7:4444 --tls-creds /etc/pki/vmferry',
    'send vm.ckpt tcp:198.51.100.7:4444 --set max-bandwidth=100M',
    "send vm.ckpt 'exec:zstd > stream.zst'",
  ]);
}
