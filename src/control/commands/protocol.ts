/** Commands about QMP itself. */
import { defineCommand } from '../command.ts';
import { refuse } from '../errors.ts';
import { introspect, SCHEMA_INFO } from '../introspection.ts';
import { arrayOf, empty, enumOf, int, optional, required, str, struct } from '../schema.ts';
import { VERSION_INFO } from '../version.ts';

/** The session takes this one itself while it negotiates; afterwards it is refused. */
export const qmpCapabilities = defineCommand({
  name: 'qmp_capabilities',
  doc: 'Ends the negotiation that every session begins with; no other command is taken before it. There is nothing to enable.',
  arguments: struct('qmp_capabilities', { enable: optional(arrayOf(enumOf('QMPCapability', [])), 'Always empty.') }),
  returns: empty,
  run: () => {
    throw refuse('CommandNotFound', 'Capabilities negotiation is over');
  },
});

export const queryVersion = defineCommand({
  name: 'query-version',
  doc: 'The QEMU version whose protocol vmferry follows, and its own as `package`.',
  arguments: empty,
  returns: struct('VersionInfo', {
    qemu: required(
      struct('VersionTriple', {
        major: required(int, 'Major version.'),
        minor: required(int, 'Minor version.'),
        micro: required(int, 'Micro version.'),
      }),
      'The QEMU version.',
    ),
    package: required(str, 'vmferry and its version.'),
  }),
  run: () => VERSION_INFO,
});

export const queryCommands = defineCommand({
  name: 'query-commands',
  doc: 'The names of all commands.',
  arguments: empty,
  returns: arrayOf(struct('CommandInfo', { name: required(str, 'Name of the command.') })),
  run: ({ commands }) => [...commands.keys()].map((name) => ({ name })),
});

export const queryQmpSchema = defineCommand({
  name: 'query-qmp-schema',
  doc: "All commands and events with their types, in the form of QEMU's qapi/introspect.json.",
  arguments: empty,
  returns: arrayOf(SCHEMA_INFO),
  run: ({ commands }) => introspect(commands),
});
