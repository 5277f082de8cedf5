import { OBJECTS, objectOptions, type PropertyDeclaration } from '../../settings/index.ts';
import { defineCommand } from '../command.ts';
import {
  bool,
  empty,
  enumOf,
  type Member,
  type ObjectNode,
  type ObjectSchema,
  optional,
  required,
  str,
  struct,
  union,
} from '../schema.ts';

const OPTIONS: ObjectSchema<Readonly<Record<string, unknown>>> = union(
  'ObjectOptions',
  'qom-type',
  Object.fromEntries(Object.entries(OBJECTS).map(([kind, { properties }]) => [kind, propertiesOf(kind, properties)])),
  { id: required(str, 'By which parameters name it.') },
);

export const objectAdd = defineCommand({
  name: 'object-add',
  doc: 'Declares an object: TLS credentials, which are loaded and checked at once, or who may come.',
  arguments: OPTIONS,
  returns: empty,
  run: ({ host }, given) => {
    host.objects.add(objectOptions(given));
    return {};
  },
});

export const objectDel = defineCommand({
  name: 'object-del',
  doc: 'Drops an object. A migration that is under way keeps what it has.',
  arguments: struct('object-del', { id: required(str, 'Of the object.') }),
  returns: empty,
  run: ({ host }, { id }) => {
    host.objects.remove(id);
    return {};
  },
});

function propertiesOf(kind: string, properties: Readonly<Record<string, PropertyDeclaration>>): ObjectNode {
  const members = Object.entries(properties).map(([name, property]) => [name, memberOf(name, property)]);
  return struct(`${kind} properties`, Object.fromEntries(members));
}

function memberOf(name: string, { type, needed, doc }: PropertyDeclaration): Member {
  const schema = type.kind === 'bool' ? bool : type.kind === 'enum' ? enumOf(type.name, type.values) : str;
  // QEMU has no folder only in its schema.
  return needed && name !== 'dir' ? required(schema, doc) : optional(schema, doc);
}
