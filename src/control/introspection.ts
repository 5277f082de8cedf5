/**
 * query-qmp-schema: the declared types in the form of qapi/introspect.json. Types other than builtins have no names on the
 * wire but numbers, and `[N]` for an array of N, as QEMU does it; equal declarations share a number.
 */
import type { CommandTable } from './command.ts';
import { EVENTS } from './events.ts';
import {
  any,
  arrayOf,
  BUILTINS,
  type Described,
  empty,
  enumOf,
  type Member,
  type ObjectNode,
  optional,
  required,
  type SchemaNode,
  str,
  struct,
  union,
} from './schema.ts';

const JSON_TYPE = enumOf(
  'JSONType',
  Object.values(BUILTINS).map(({ jsonType }) => jsonType),
);

const VARIANT = struct('SchemaInfoObjectVariant', {
  case: required(str, 'Value of the tag.'),
  type: required(str, 'Type of the further members.'),
});

const OBJECT_MEMBER = struct('SchemaInfoObjectMember', {
  name: required(str, 'Name of the member.'),
  type: required(str, 'Its type.'),
  default: optional(any, 'Present, and null, if the member may be left out.'),
  features: optional(arrayOf(str), 'Such as unstable.'),
});

/** One element of the reply. */
export const SCHEMA_INFO = union(
  'SchemaInfo',
  'meta-type',
  {
    builtin: struct('SchemaInfoBuiltin', { 'json-type': required(JSON_TYPE, 'The JSON type.') }),
    enum: struct('SchemaInfoEnum', {
      members: required(arrayOf(struct('SchemaInfoEnumMember', { name: required(str, 'A value.') })), 'The values.'),
      values: required(arrayOf(str), 'The values, in the form of older versions.'),
    }),
    array: struct('SchemaInfoArray', { 'element-type': required(str, 'Type of the elements.') }),
    object: struct('SchemaInfoObject', {
      members: required(arrayOf(OBJECT_MEMBER), 'The members.'),
      tag: optional(str, 'Name of the member that selects a variant.'),
      variants: optional(arrayOf(VARIANT), 'Further members by the value of the tag.'),
    }),
    alternate: struct('SchemaInfoAlternate', {
      members: required(arrayOf(struct('SchemaInfoAlternateMember', { type: required(str, 'A type.') })), 'The types.'),
    }),
    command: struct('SchemaInfoCommand', {
      'arg-type': required(str, 'Type of the arguments.'),
      'ret-type': required(str, 'Type of the return value.'),
    }),
    event: struct('SchemaInfoEvent', { 'arg-type': required(str, 'Type of the data.') }),
  },
  { name: required(str, 'Name of the entity.') },
);

export type SchemaInfo = Described<typeof SCHEMA_INFO>;

export function introspect(commands: CommandTable): SchemaInfo[] {
  const types = new TypeNames();
  const entities: SchemaInfo[] = [];
  for (const { name, arguments: args, returns } of commands.values()) {
    entities.push({ name, 'meta-type': 'command', 'arg-type': types.nameOf(args), 'ret-type': types.nameOf(returns) });
  }
  for (const [name, { data = empty }] of Object.entries(EVENTS)) {
    entities.push({ name, 'meta-type': 'event', 'arg-type': types.nameOf(data) });
  }
  return [...entities, ...types.infos];
}

class TypeNames {
  readonly infos: SchemaInfo[] = [];
  readonly #names = new Map<SchemaNode, string>();

  nameOf(node: SchemaNode): string {
    const known = this.#names.get(node);
    if (known !== undefined) return known;
    if (node.kind === 'builtin') {
      this.#names.set(node, node.name);
      this.infos.push({ name: node.name, 'meta-type': 'builtin', 'json-type': BUILTINS[node.name].jsonType });
      return node.name;
    }
    if (node.kind === 'array') {
      const element = this.nameOf(node.element);
      const name = `[${element}]`;
      this.#names.set(node, name);
      if (!this.infos.some((info) => info.name === name)) {
        this.infos.push({ name, 'meta-type': 'array', 'element-type': element });
      }
      return name;
    }
    const name = String(this.#names.size);
    this.#names.set(node, name);
    switch (node.kind) {
      case 'enum':
        this.infos.push({
          name,
          'meta-type': 'enum',
          members: node.values.map((value) => ({ name: value })),
          values: node.values,
        });
        break;
      case 'alternate':
        this.infos.push({
          name,
          'meta-type': 'alternate',
          members: node.options.map((option) => ({ type: this.nameOf(option) })),
        });
        break;
      case 'object':
        this.infos.push(this.#object(name, node));
    }
    return name;
  }

  #object(name: string, { members, union }: ObjectNode): SchemaInfo {
    return {
      name,
      'meta-type': 'object',
      members: Object.entries(members).map(([member, declaration]) => this.#member(member, declaration)),
      ...(union === undefined
        ? {}
        : {
            tag: union.tag,
            variants: Object.entries(union.cases).map(([key, object]) => ({ case: key, type: this.nameOf(object) })),
          }),
    };
  }

  #member(name: string, { schema, optional, features }: Member) {
    return {
      name,
      ...(optional ? { default: null } : {}),
      type: this.nameOf(schema),
      ...(features === undefined ? {} : { features }),
    };
  }
}
