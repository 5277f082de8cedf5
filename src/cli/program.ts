import { Command } from 'commander';
import { PACKAGE_VERSION } from '../control/index.ts';
import { addCheck } from './commands/check.ts';
import { addDemo } from './commands/demo.ts';
import { addDeviceMove } from './commands/device-move.ts';
import { addDeviceServer } from './commands/device-server.ts';
import { addInspect } from './commands/inspect.ts';
import { addMigrate } from './commands/migrate.ts';
import { addReceive } from './commands/receive.ts';
import { addRestore } from './commands/restore.ts';
import { addRun } from './commands/run.ts';
import { addSave } from './commands/save.ts';
import { addSend } from './commands/send.ts';

/** In the order of the help: whole jobs, then the parts they are made of. */
const COMMANDS = [
  addDemo,
  addSave,
  addRestore,
  addMigrate,
  addCheck,
  addInspect,
  addRun,
  addReceive,
  addSend,
  addDeviceServer,
  addDeviceMove,
];

/** The command line as commander knows it. It throws CommanderError instead of leaving; what is not help or version is a usage error. */
export function buildProgram(): Command {
  const program = new Command('vmferry')
    .description("Moves running virtual machines, in QEMU's own migration protocol.")
    .version(PACKAGE_VERSION, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show the help of a command')
    .showHelpAfterError('(add --help for what is possible, with examples)')
    .configureHelp({ helpWidth: 120 })
    .exitOverride();
  for (const add of COMMANDS) add(program);
  program.addHelpText(
    'after',
    [
      '',
      'Exit status: 0 done, 1 failed, 2 usage, 130 interrupted.',
      '',
      'Examples:',
      '  $ vmferry demo',
      '  $ vmferry save qmp.sock vm.ckpt',
      '  $ vmferry restore vm.ckpt qmp.sock',
      '  $ vmferry migrate a.sock b.sock',
      '',
    ].join('\n'),
  );
  return program;
}
