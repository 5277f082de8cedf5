/** Commands about the machine and its process. */
import type { HostStatus } from '../../migration/index.ts';
import { defineCommand } from '../command.ts';
import { bool, empty, enumOf, optional, required, str, struct } from '../schema.ts';

const RUN_STATE = enumOf('RunState', [
  'inmigrate',
  'internal-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'running',
  'shutdown',
] satisfies readonly HostStatus['status'][]);

export const queryStatus = defineCommand({
  name: 'query-status',
  doc: 'Whether the machine runs, and its run state.',
  arguments: empty,
  returns: struct('StatusInfo', {
    running: required(bool, 'Whether the vCPUs run.'),
    status: required(RUN_STATE, 'The run state.'),
  }),
  run: ({ host }) => host.status(),
});

export const queryName = defineCommand({
  name: 'query-name',
  doc: 'The name the process was given.',
  arguments: empty,
  returns: struct('NameInfo', { name: optional(str, 'Absent if it has none.') }),
  run: ({ host }) => (host.name === '' ? {} : { name: host.name }),
});

export const stop = defineCommand({
  name: 'stop',
  doc: 'Stops the machine. Without effect if it is stopped.',
  arguments: empty,
  returns: empty,
  run: async ({ host }) => {
    await host.stop();
    return {};
  },
});

export const cont = defineCommand({
  name: 'cont',
  doc: 'Lets the machine run. Without effect if it runs.',
  arguments: empty,
  returns: empty,
  run: async ({ host }) => {
    await host.cont();
    return {};
  },
});

export const quit = defineCommand({
  name: 'quit',
  doc: 'Ends the process.',
  arguments: empty,
  returns: empty,
  run: async ({ host, closing }) => {
    // The host closes this server on its way out; the reply must not wait for what waits for the reply.
    await Promise.race([host.quit(), closing]);
    return {};
  },
});
