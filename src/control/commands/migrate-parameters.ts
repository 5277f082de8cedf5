import { PARAMETER_NAMES, type ParameterType, parameterDeclaration } from '../../settings/index.ts';
import { defineCommand } from '../command.ts';
import {
  any,
  arrayOf,
  bool,
  empty,
  enumOf,
  int,
  type Members,
  type ObjectSchema,
  optional,
  type SchemaNode,
  strOrNull,
  struct,
} from '../schema.ts';

const PARAMETERS: ObjectSchema<Readonly<Record<string, unknown>>> = struct('MigrationParameters', members());

export const migrateSetParameters = defineCommand({
  name: 'migrate-set-parameters',
  doc: 'Sets parameters, all that are named or none. A running migration follows those marked live.',
  arguments: PARAMETERS,
  returns: empty,
  run: ({ host }, values) => {
    host.settings.setParameters(values);
    return {};
  },
});

export const queryMigrateParameters = defineCommand({
  name: 'query-migrate-parameters',
  doc: 'The parameters and their values.',
  arguments: empty,
  returns: PARAMETERS,
  run: ({ host }) => host.settings.parameters(),
});

/** Those that the newest QEMU knows. Ranges are the settings' business: QMP shows plain integers, as QEMU does. */
function members(): Members {
  const current = PARAMETER_NAMES.filter((name) => parameterDeclaration(name).removed === undefined);
  return Object.fromEntries(
    current.map((name) => {
      const { type, doc, unstable } = parameterDeclaration(name);
      const member = optional(schemaOf(name, type), doc);
      return [name, unstable ? { ...member, features: ['unstable'] } : member];
    }),
  );
}

function schemaOf(name: string, type: ParameterType): SchemaNode {
  switch (type.kind) {
    case 'int':
    case 'size':
      return int;
    case 'bool':
      return bool;
    case 'string':
      return strOrNull;
    case 'enum':
      return enumOf(name, type.values);
    case 'list':
      return arrayOf(any);
  }
}
