import { CommanderError } from 'commander';
import { EXIT } from './exit-status.ts';
import { buildProgram } from './program.ts';

// A reader that goes away (`| head`) must not end a migration.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});

try {
  await buildProgram().parseAsync();
} catch (thrown) {
  if (!(thrown instanceof CommanderError)) throw thrown;
  process.exitCode = thrown.exitCode === 0 ? EXIT.done : EXIT.usage;
}
// Whatever a command still holds, it is over.
process.exit();
