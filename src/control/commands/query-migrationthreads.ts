import { defineCommand } from '../command.ts';
import { arrayOf, empty, int, required, str, struct } from '../schema.ts';

const MIGRATION_THREAD_INFO = struct('MigrationThreadInfo', {
  name: required(str, 'Its name, as the system shows it too.'),
  'thread-id': required(int, "The system's number of it."),
});

export const queryMigrationThreads = defineCommand({
  name: 'query-migrationthreads',
  doc: 'The threads of a migration that send or receive pages: one for each multifd channel. Empty when there is none.',
  arguments: empty,
  returns: arrayOf(MIGRATION_THREAD_INFO),
  run: ({ host }) => host.queryMigrationThreads(),
});
