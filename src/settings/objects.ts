/**
 * Objects that an operator declares and that parameters name: who may speak TLS with whom. Kinds, properties and defaults are QEMU's (qapi/crypto.json,
 * qapi/authz.json); object-add, --object and the docs follow from this table.
 */
import { settingsError } from './errors.ts';
import { parseBool } from './parse.ts';

export interface PropertyDeclaration {
  readonly type:
    | { readonly kind: 'string' | 'bool' }
    | { readonly kind: 'enum'; readonly name: string; readonly values: readonly string[] };
  readonly default: string | boolean;
  /** An empty text is none. */
  readonly needed?: true;
  readonly doc: string;
}

const ENDPOINT = {
  type: { kind: 'enum', name: 'QCryptoTLSCredsEndpoint', values: ['client', 'server'] },
  default: 'client',
  doc: 'The source of a migration is the client, the destination the server.',
} as const;
const VERIFY_PEER = { kind: 'bool' } as const;

export const OBJECTS = {
  'tls-creds-x509': {
    doc: 'Certificates: ca-cert.pem, ca-crl.pem (if there), server-cert.pem and server-key.pem, or (if the server asks) client-cert.pem and client-key.pem.',
    properties: {
      endpoint: ENDPOINT,
      dir: { type: { kind: 'string' }, default: '', needed: true, doc: 'Folder of the files.' },
      'verify-peer': {
        type: VERIFY_PEER,
        default: true,
        doc: 'The peer must show a certificate of the authority, a server one with its name.',
      },
      'sanity-check': { type: { kind: 'bool' }, default: true, doc: 'vmferry always checks what it loads.' },
    },
  },
  'tls-creds-psk': {
    doc: 'Keys that both sides know: keys.psk, with lines user:key in hexadecimal.',
    properties: {
      endpoint: ENDPOINT,
      dir: { type: { kind: 'string' }, default: '', needed: true, doc: 'Folder of the file.' },
      'verify-peer': { type: VERIFY_PEER, default: true, doc: 'Without effect: who knows the key is the peer.' },
      username: { type: { kind: 'string' }, default: 'qemu', doc: 'Of a client: whose key it uses.' },
    },
  },
  'authz-simple': {
    doc: 'One who may come, for tls-authz.',
    properties: {
      identity: {
        type: { kind: 'string' },
        default: '',
        needed: true,
        doc: "The name in a client's certificate, as CN=client,O=Org.",
      },
    },
  },
} as const satisfies Readonly<
  Record<string, { readonly doc: string; readonly properties: Readonly<Record<string, PropertyDeclaration>> }>
>;

export type ObjectKind = keyof typeof OBJECTS;
export const OBJECT_KINDS = Object.keys(OBJECTS) as readonly ObjectKind[];

type ValueOf<D> = D extends { readonly type: { readonly kind: 'bool' } }
  ? boolean
  : D extends { readonly type: { readonly values: readonly (infer V)[] } }
    ? V
    : string;

/** An object of each kind, whole: what was not given has its default. */
export type ObjectOptions = {
  [K in ObjectKind]: { readonly 'qom-type': K; readonly id: string } & {
    readonly [P in keyof (typeof OBJECTS)[K]['properties']]: ValueOf<(typeof OBJECTS)[K]['properties'][P]>;
  };
}[ObjectKind];

export function propertiesOf(kind: ObjectKind): Readonly<Record<string, PropertyDeclaration>> {
  return OBJECTS[kind].properties;
}

/** Checks what came from outside. Throws SETTINGS_UNKNOWN, SETTINGS_BAD_VALUE. */
export function objectOptions(given: Readonly<Record<string, unknown>>): ObjectOptions {
  const { 'qom-type': kind, id, ...properties } = given;
  if (!isObjectKind(kind)) {
    throw settingsError({ code: 'SETTINGS_UNKNOWN', name: String(kind) }, `There is no object of type '${kind}'`);
  }
  // QEMU's rule for ids.
  if (typeof id !== 'string' || !/^[a-z][a-z0-9\-._]*$/i.test(id)) {
    throw badProperty(kind, 'id', id, 'a letter, then letters, digits, - . and _');
  }
  const declared = propertiesOf(kind);
  const values: Record<string, unknown> = { 'qom-type': kind, id };
  for (const name of Object.keys(properties)) {
    if (!isProperty(kind, name)) {
      throw settingsError({ code: 'SETTINGS_UNKNOWN', name }, `An object of type '${kind}' has no property '${name}'`);
    }
  }
  for (const [name, { type, default: initial, needed }] of Object.entries(declared)) {
    const value = properties[name] ?? initial;
    if (type.kind === 'bool' && typeof value !== 'boolean') throw badProperty(kind, name, value, 'on or off');
    if (type.kind !== 'bool' && typeof value !== 'string') throw badProperty(kind, name, value, 'a text');
    if (type.kind === 'enum' && !type.values.includes(value as string))
      throw badProperty(kind, name, value, `one of ${type.values.join(', ')}`);
    if (needed && value === '') throw badProperty(kind, name, value, 'a text: it is needed');
    values[name] = value;
  }
  return values as ObjectOptions;
}

/** As people type it: `tls-creds-x509,id=tls0,endpoint=server,dir=/etc/pki/vmferry,verify-peer=off`. Throws SettingsError. */
export function parseObject(text: string): ObjectOptions {
  const [kind = '', ...assignments] = text.split(',');
  const given: Record<string, unknown> = { 'qom-type': kind };
  for (const assignment of assignments) {
    const equals = assignment.indexOf('=');
    if (equals < 1) {
      throw settingsError({ code: 'SETTINGS_BAD_ASSIGNMENT', text }, `'${assignment}' is not of the form NAME=VALUE`);
    }
    const name = assignment.slice(0, equals);
    const value = assignment.slice(equals + 1);
    const isBool = isObjectKind(kind) && isProperty(kind, name) && propertiesOf(kind)[name]!.type.kind === 'bool';
    given[name] = isBool ? (parseBool(value) ?? value) : value;
  }
  return objectOptions(given);
}

function isObjectKind(name: unknown): name is ObjectKind {
  return typeof name === 'string' && Object.hasOwn(OBJECTS, name);
}

function isProperty(kind: ObjectKind, name: string): boolean {
  return Object.hasOwn(OBJECTS[kind].properties, name);
}

function badProperty(kind: ObjectKind, name: string, value: unknown, expected: string) {
  return settingsError(
    { code: 'SETTINGS_BAD_VALUE', name, value, expected },
    `Property '${name}' of an object of type '${kind}' expects ${expected}`,
  );
}
