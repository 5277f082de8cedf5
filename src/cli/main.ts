import { CommanderError } from 'commander';
import { EXIT } from './exit-status.ts';
import { buildProgram } from './program.ts';
import { JsonReporter } from './reporter.ts';

// A reader that goes away (`| head`) must not end a migration.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});

try {
  await buildProgram().parseAsync();
} catch (thrown) {
  if (!(thrown instanceof CommanderError)) throw thrown;
  process.exitCode = thrown.exitCode === 0 ? EXIT.done : EXIT.usage;
  // Commander has told people already; a program reads its one result here too.
  if (process.exitCode !== EXIT.done && process.argv.includes('--json')) {
    new JsonReporter().result({ status: 'failed', error: { code: 'USAGE', message: thrown.message } });
  }
}
// Whatever a command still holds, it is over.
process.exit();
