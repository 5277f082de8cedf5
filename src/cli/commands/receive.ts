import type { Command } from 'commander';
import { ownTls, receive } from '../../porcelain/index.ts';
import type { Assignments, CompatOverrides, ObjectOptions } from '../../settings/index.ts';
import {
  compatOption,
  engineSettings,
  examples,
  jsonOption,
  objectOption,
  qmpOption,
  setOption,
  settingsOf,
  uri,
} from '../options.ts';
import { perform } from '../perform.ts';
import { serveQmp } from '../serve-qmp.ts';
import { addTlsOptions, type TlsFlags, tlsChoice } from '../tls-options.ts';
import { warnExposed } from '../warn-exposed.ts';

interface ReceiveFlags extends TlsFlags {
  readonly object?: readonly ObjectOptions[];
  readonly to: string;
  readonly qmp?: string;
  readonly set?: Assignments;
  readonly compat?: CompatOverrides;
  readonly json?: boolean;
}

export function addReceive(program: Command): void {
  const command = program
    .command('receive')
    .summary('take a migration into a checkpoint')
    .description(
      'The destination of a migration that somebody else drives: waits at a URI, takes one machine (QEMU or vmferry) and writes it to a ' +
        'checkpoint. The file appears when it is complete and synced, and not before. For a process with a QMP socket, `save` does both ends.',
    )
    .argument(
      '<uri>',
      'where to wait: tcp:HOST:PORT (port 0 takes a free one), unix:PATH, fd:N, exec:COMMAND, file:PATH',
      uri,
    )
    .requiredOption('--to <file>', 'the checkpoint')
    .addOption(qmpOption())
    .addOption(setOption('migration capability or parameter'))
    .addOption(compatOption())
    .addOption(jsonOption())
    .action((at: string, flags: ReceiveFlags) =>
      perform(flags, async ({ signal, reporter }) => {
        const { objects, parameters } = ownTls(tlsChoice(flags), 'server', flags.object);
        return {
          outcome: await receive({
            uri: at,
            file: flags.to,
            settings: engineSettings(settingsOf(flags.set, parameters), { compat: flags.compat }),
            objects,
            exposed: warnExposed,
            signal,
            progress: (progress) => reporter.progress(progress),
            listening: (real) => reporter.event('listening', { uri: real }, `listening at ${real}`),
            serve: serveQmp(flags.qmp),
          }),
        };
      }),
    );
  addTlsOptions(command, 'server').addOption(objectOption());
  examples(command, [
    'receive tcp:127.0.0.1:4444 --to vm.ckpt',
    'receive unix:/run/user/1000/m.sock --to vm.ckpt --json',
    'receive tcp:0.0.0.0:4444 --to vm.ckpt --tls-creds /etc/pki/vmferry',
    "receive 'exec:zstd -dc stream.zst' --to vm.ckpt",
  ]);
}
