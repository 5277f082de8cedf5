import { defineCommand } from '../command.ts';
import { refuse } from '../errors.ts';
import { bool, empty, optional, struct } from '../schema.ts';
import { DESTINATION, destinationUri } from './migrate-address.ts';

export const migrate = defineCommand({
  name: 'migrate',
  doc: 'Starts to migrate the machine away and returns; query-migrate and events tell how it goes.',
  arguments: struct('migrate', {
    ...DESTINATION,
    detach: optional(bool, 'Without effect: the command never waits. New versions of QEMU no longer take it.'),
    resume: optional(bool, 'Go on with a postcopy migration that has paused. There is none in vmferry yet.'),
  }),
  returns: empty,
  run: async ({ host }, args) => {
    if (args.resume === true) throw refuse('GenericError', 'There is no paused migration that could be resumed');
    await host.migrate(destinationUri(args));
    return {};
  },
});
