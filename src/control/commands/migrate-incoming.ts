import { defineCommand } from '../command.ts';
import { empty, struct } from '../schema.ts';
import { DESTINATION, destinationUri } from './migrate-address.ts';

export const migrateIncoming = defineCommand({
  name: 'migrate-incoming',
  doc: 'Waits for a machine at an address, in a process started with `--incoming defer`.',
  arguments: struct('migrate-incoming', DESTINATION),
  returns: empty,
  run: async ({ host }, args) => {
    await host.migrateIncoming(destinationUri(args));
    return {};
  },
});
