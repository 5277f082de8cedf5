/** QMP commands about the dialect of the embedded machine: which compat properties its machine type has, and one of them switched by hand. */
import { arrayOf, type Command, defineCommand, empty, required, str, struct } from '../../control/index.ts';
import { COMPAT_PROPERTIES, type CompatName, compatText, parseCompat } from '../../settings/index.ts';

const PROPERTY = struct('XCompatProperty', {
  property: required(str, "QEMU's name of it."),
  value: required(str, 'What counts now.'),
});

/** `machineType` is asked for when a command runs. */
export function compatCommands(machineType: () => string): Command[] {
  return [
    defineCommand({
      name: 'x-query-compat',
      doc: 'The dialect of the machine type: its compat properties, as they are or were switched by hand.',
      arguments: empty,
      returns: arrayOf(PROPERTY),
      run: ({ host }) => {
        const dialect = host.settings.dialect(machineType());
        return (Object.keys(COMPAT_PROPERTIES) as CompatName[]).map((name) => ({
          property: COMPAT_PROPERTIES[name].property,
          value: compatText(dialect[name]),
        }));
      },
    }),
    defineCommand({
      name: 'x-set-compat',
      doc: 'Switches a compat property by hand, for the next migration. Both ends must be switched alike.',
      arguments: struct('x-set-compat', {
        property: required(str, "QEMU's name of it."),
        value: required(str, 'The value, as x-query-compat shows it.'),
      }),
      returns: empty,
      run: ({ host }, { property, value }) => {
        host.settings.setCompat(parseCompat([`${property}=${value}`]));
        return {};
      },
    }),
  ];
}
