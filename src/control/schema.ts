/**
 * The types of QMP as values: what QAPI calls builtin, enum, array, struct, union and alternate. A command's argument and
 * return types are written once with these; checks of input, the static types of handlers, query-qmp-schema and the docs
 * all come from them.
 */
import { refuse } from './errors.ts';

export type BuiltinName = 'str' | 'int' | 'number' | 'bool' | 'null' | 'any';

export interface Member<T = unknown> {
  readonly schema: Schema<T>;
  readonly optional: boolean;
  readonly doc: string;
  /** QAPI features, such as unstable or deprecated. */
  readonly features?: readonly string[];
}

export type Members = Readonly<Record<string, Member>>;

export interface ObjectNode {
  readonly kind: 'object';
  /** QAPI's name of the type; only docs show it. */
  readonly name: string;
  readonly members: Members;
  /** With the value of member `tag` come the members of that case. */
  readonly union?: { readonly tag: string; readonly cases: Readonly<Record<string, ObjectNode>> };
}

export type SchemaNode =
  | { readonly kind: 'builtin'; readonly name: BuiltinName }
  | { readonly kind: 'enum'; readonly name: string; readonly values: readonly string[] }
  | { readonly kind: 'array'; readonly element: SchemaNode }
  | { readonly kind: 'alternate'; readonly name: string; readonly options: readonly SchemaNode[] }
  | ObjectNode;

/** A node that describes values of type T. */
export type Schema<T> = SchemaNode & { readonly describes?: T };
export type ObjectSchema<T> = ObjectNode & { readonly describes?: T };
export type Described<S> = S extends { readonly describes?: infer T } ? T : never;

type OptionalNames<M extends Members> = { [K in keyof M]: M[K]['optional'] extends true ? K : never }[keyof M];
type Flat<T> = { readonly [K in keyof T]: T[K] };
type ObjectOf<M extends Members> = Flat<
  { [K in Exclude<keyof M, OptionalNames<M>>]: Described<M[K]['schema']> } & {
    [K in OptionalNames<M>]?: Described<M[K]['schema']>;
  }
>;

export const str: Schema<string> = { kind: 'builtin', name: 'str' };
/** A whole number. QEMU has narrower types inside, but shows them all as int. */
export const int: Schema<number> = { kind: 'builtin', name: 'int' };
export const number: Schema<number> = { kind: 'builtin', name: 'number' };
export const bool: Schema<boolean> = { kind: 'builtin', name: 'bool' };
export const any: Schema<unknown> = { kind: 'builtin', name: 'any' };
const nothing: Schema<null> = { kind: 'builtin', name: 'null' };

export function enumOf<const V extends readonly string[]>(name: string, values: V): Schema<V[number]> {
  return { kind: 'enum', name, values };
}

export function arrayOf<T>(element: Schema<T>): Schema<readonly T[]> {
  return { kind: 'array', element };
}

/** Text, or null which means the same as the empty text. */
export const strOrNull: Schema<string | null> = { kind: 'alternate', name: 'StrOrNull', options: [str, nothing] };

type Required<S> = { readonly schema: S; readonly optional: false; readonly doc: string };
type Optional<S> = { readonly schema: S; readonly optional: true; readonly doc: string };

export function required<S extends SchemaNode>(schema: S, doc: string): Required<S> {
  return { schema, optional: false, doc };
}

export function optional<S extends SchemaNode>(schema: S, doc: string): Optional<S> {
  return { schema, optional: true, doc };
}

export function struct<M extends Members>(name: string, members: M): ObjectSchema<ObjectOf<M>> {
  return { kind: 'object', name, members };
}

type CaseOf<Tag extends string, C extends Readonly<Record<string, ObjectNode>>> = {
  [K in keyof C]: { readonly [T in Tag]: K } & Described<C[K]>;
}[keyof C];

/** An object whose member `tag` tells which further members it has, beside those of `base`. */
export function union<
  Tag extends string,
  C extends Readonly<Record<string, ObjectNode>>,
  B extends Members = Readonly<Record<never, never>>,
>(name: string, tag: Tag, cases: C, base?: B): ObjectSchema<CaseOf<Tag, C> & ObjectOf<B>> {
  const tagType = enumOf(`${name}.${tag}`, Object.keys(cases));
  return {
    kind: 'object',
    name,
    members: { ...base, [tag]: required(tagType, 'Which one it is.') },
    union: { tag, cases },
  };
}

/** Arguments or a return value without members. */
export const empty: ObjectSchema<Readonly<Record<string, never>>> = { kind: 'object', name: 'empty', members: {} };

interface Builtin {
  /** In query-qmp-schema. */
  readonly jsonType: string;
  /** In error messages. */
  readonly word: string;
  readonly holds: (value: unknown) => boolean;
}

export const BUILTINS: Readonly<Record<BuiltinName, Builtin>> = {
  str: { jsonType: 'string', word: 'string', holds: (value) => typeof value === 'string' },
  int: { jsonType: 'int', word: 'integer', holds: Number.isInteger },
  number: { jsonType: 'number', word: 'number', holds: (value) => typeof value === 'number' },
  bool: { jsonType: 'boolean', word: 'boolean', holds: (value) => typeof value === 'boolean' },
  null: { jsonType: 'null', word: 'null', holds: (value) => value === null },
  any: { jsonType: 'value', word: 'any value', holds: () => true },
};

/** Throws the GenericError that tells which part of `value` is missing, unexpected or of another type. `path` names the value. */
export function check(schema: SchemaNode, value: unknown, path = ''): void {
  switch (schema.kind) {
    case 'builtin':
      if (!BUILTINS[schema.name].holds(value)) throw wrongType(path, BUILTINS[schema.name].word);
      return;
    case 'enum':
      if (typeof value !== 'string') throw wrongType(path, 'string');
      if (!schema.values.includes(value)) {
        throw refuse('GenericError', `Parameter '${lastName(path)}' does not accept value '${value}'`);
      }
      return;
    case 'array':
      if (!Array.isArray(value)) throw wrongType(path, 'array');
      for (const [index, element] of value.entries()) check(schema.element, element, `${path}[${index}]`);
      return;
    case 'alternate':
      if (!schema.options.some((option) => option.kind === 'builtin' && BUILTINS[option.name].holds(value))) {
        throw wrongType(path, schema.name);
      }
      return;
    case 'object':
      checkObject(schema, value, path);
  }
}

function checkObject(schema: ObjectNode, value: unknown, path: string): void {
  if (!isRecord(value)) throw wrongType(path, 'object');
  const known = new Set<string>();
  for (let node: ObjectNode | undefined = schema; node !== undefined; node = selectedCase(node, value)) {
    for (const [name, member] of Object.entries(node.members)) {
      known.add(name);
      const inside = Object.hasOwn(value, name);
      if (inside) check(member.schema, value[name], memberPath(path, name));
      else if (!member.optional) throw refuse('GenericError', `Parameter '${memberPath(path, name)}' is missing`);
    }
  }
  for (const name of Object.keys(value)) {
    if (!known.has(name)) throw refuse('GenericError', `Parameter '${memberPath(path, name)}' is unexpected`);
  }
}

/** The case a checked tag selects. */
function selectedCase({ union }: ObjectNode, value: Record<string, unknown>): ObjectNode | undefined {
  return union === undefined ? undefined : union.cases[value[union.tag] as string];
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrongType(path: string, expected: string) {
  return refuse('GenericError', `Invalid parameter type for '${path}', expected: ${expected}`);
}

function memberPath(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}
