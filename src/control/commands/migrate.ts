import { defineCommand } from '../command.ts';
import { bool, empty, optional, struct } from '../schema.ts';
import { DESTINATION, destinationUri } from './migrate-address.ts';

export const migrate = defineCommand({
  name: 'migrate',
  doc: 'Starts to migrate the machine away and returns; query-migrate and events tell how it goes.',
  arguments: struct('migrate', {
    ...DESTINATION,
    detach: optional(bool, 'Without effect: the command never waits. New versions of QEMU no longer take it.'),
    resume: optional(bool, 'Go on with a postcopy that has paused, at this address: in state `postcopy-paused`.'),
  }),
  returns: empty,
  run: async ({ host }, args) => {
    await host.migrate(destinationUri(args), { resume: args.resume === true });
    return {};
  },
});
