import { defineCommand } from '../command.ts';
import { bool, empty, optional, struct } from '../schema.ts';
import { DESTINATION, destinationUri } from './migrate-address.ts';

export const migrateIncoming = defineCommand({
  name: 'migrate-incoming',
  doc: 'Waits for a machine at an address, in a process started with `--incoming defer`.',
  arguments: struct('migrate-incoming', {
    ...DESTINATION,
    'exit-on-error': optional(
      bool,
      'Whether the process ends if the migration fails (default true); if not, query-migrate tells why.',
    ),
  }),
  returns: empty,
  run: async ({ host }, args) => {
    await host.migrateIncoming(destinationUri(args), { exitOnError: args['exit-on-error'] ?? true });
    return {};
  },
});
