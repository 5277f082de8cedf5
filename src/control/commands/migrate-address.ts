/** The `channels` form of a migration address (since QEMU 8.2), turned into the URI that it means. */
import { refuse } from '../errors.ts';
import { arrayOf, type Described, enumOf, int, optional, required, str, struct, union } from '../schema.ts';
import { SOCKET_ADDRESS } from '../socket-address.ts';

const ADDRESS = union('MigrationAddress', 'transport', {
  socket: SOCKET_ADDRESS,
  exec: struct('MigrationExecCommand', { args: required(arrayOf(str), 'Command and arguments.') }),
  file: struct('FileMigrationArgs', {
    filename: required(str, 'Path of the file.'),
    offset: required(int, 'Where the stream begins in it, bytes.'),
  }),
});

const CHANNEL = struct('MigrationChannel', {
  'channel-type': required(enumOf('MigrationChannelType', ['main']), 'What the channel is for.'),
  addr: required(ADDRESS, 'Where it leads.'),
});

export const DESTINATION = {
  uri: optional(str, 'Where to, as tcp:HOST:PORT, unix:PATH, fd:N, exec:COMMAND or file:PATH[,offset=N].'),
  channels: optional(arrayOf(CHANNEL), 'The same in parts: a list of one main channel.'),
};

/** Exactly one of the two is wanted. Throws GenericError. */
export function destinationUri({
  uri,
  channels = [],
}: {
  readonly uri?: string;
  readonly channels?: readonly Described<typeof CHANNEL>[];
}): string {
  const [channel, second] = channels;
  if (uri !== undefined && channel !== undefined) {
    throw refuse('GenericError', "'uri' and 'channels' exclude each other");
  }
  if (second !== undefined) throw refuse('GenericError', "'channels' may name only one channel, the main one");
  if (uri !== undefined) return uri;
  if (channel === undefined) throw refuse('GenericError', "Either 'uri' or 'channels' is needed");
  return addressUri(channel.addr);
}

function addressUri(address: Described<typeof ADDRESS>): string {
  switch (address.transport) {
    case 'exec':
      // A URI's command goes to the shell: quoted, its words reach the program as they are.
      return `exec:${address.args.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')}`;
    case 'file':
      return `file:${address.filename},offset=${address.offset}`;
    case 'socket':
      switch (address.type) {
        case 'inet':
          return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
        case 'unix':
          return `unix:${address.path}`;
        case 'fd':
          return `fd:${address.str}`;
      }
  }
}
