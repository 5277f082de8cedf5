/** What can be set at one end only: every capability, and every parameter. */
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  capabilityDeclaration,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
} from '../../../src/settings/index.ts';
import { DEVICE_ROWS } from './device-rows.ts';
import type { Having, Row, Value } from './model.ts';

/** Names of the credentials that both ends of every cell have, for tls-creds. */
export const CREDENTIALS = 'tls0';

/** Of a time that is not the default: nothing here takes so long, ms. */
const LONG_MS = 60_000;

const named = (name: string) => new RegExp(name, 'i');

/** What a QEMU says of its own setting before anybody is there. */
const NO_SEEKING = /mapped-ram|seekable/;

const CAPABILITY_ROWS: readonly Row[] = CAPABILITY_NAMES.map((name) => {
  const { requires = [], excludes = [], ends } = capabilityDeclaration(name);
  // One that has no return path, which `vmferry migrate` sees to, is refused by that.
  const harmless =
    !excludes.includes('return-path') && (ends === undefined || ends === 'offered' || ends === 'destination');
  return {
    kind: 'capability',
    title: name,
    named: name === 'mapped-ram' ? NO_SEEKING : named(name),
    both: { capabilities: requires },
    one: { capabilities: [name] },
    ends: name === 'x-vmferry-handshake' ? 'vmferry' : 'all',
    ...(harmless && { harmless }),
  };
});

/** Those that show only once the guest runs at the destination. */
const POSTCOPY_ROWS: readonly Row[] = (
  [
    ['postcopy-preempt', ['postcopy-ram']],
    ['postcopy-blocktime', ['postcopy-ram']],
    ['return-path', ['postcopy-ram']],
    ['multifd', ['postcopy-ram']],
  ] as const satisfies readonly [CapabilityName, readonly CapabilityName[]][]
).map(([name, capabilities]) => {
  const { ends } = capabilityDeclaration(name);
  return {
    kind: 'capability',
    title: `${name}, in a postcopy`,
    named: named(name),
    both: { capabilities },
    one: { capabilities: [name] },
    postcopy: true,
    ends: 'all',
    ...(ends !== 'same' && { harmless: true }),
  };
});

/** Parameters that what is sent depends on, or what is expected: with the value of one end, and what must be on for it to matter. */
const WIRE_PARAMETERS: readonly [name: ParameterName, value: Value, both: Having, harmless?: true][] = [
  ['tls-creds', CREDENTIALS, {}],
  ['tls-hostname', 'vm.example', { parameters: { 'tls-creds': CREDENTIALS } }, true],
  ['multifd-channels', 3, { capabilities: ['multifd'] }],
  ['multifd-compression', 'zlib', { capabilities: ['multifd'] }],
  ['multifd-compression', 'zstd', { capabilities: ['multifd'] }],
  ['multifd-zlib-level', 9, { capabilities: ['multifd'], parameters: { 'multifd-compression': 'zlib' } }, true],
  ['multifd-zstd-level', 9, { capabilities: ['multifd'], parameters: { 'multifd-compression': 'zstd' } }, true],
  ['zero-page-detection', 'none', { capabilities: ['multifd'] }, true],
  ['zero-page-detection', 'legacy', { capabilities: ['multifd'] }, true],
  ['xbzrle-cache-size', 1 << 20, { capabilities: ['xbzrle'] }, true],
  ['mode', 'cpr-reboot', {}, true],
];

const WIRE_ROWS: readonly Row[] = WIRE_PARAMETERS.map(([name, value, both, harmless]) => ({
  kind: 'parameter',
  title: `${name}=${value}`,
  named: name === 'tls-creds' ? /TLS|tls-creds/ : named(name),
  both,
  one: { parameters: { [name]: value } },
  ends: 'all',
  ...(harmless && { harmless }),
}));

/** Needs an object that says who may come; scenarios of TLS play that. */
const PLAYED_ELSEWHERE: ReadonlySet<ParameterName> = new Set(['tls-authz']);

/** All other parameters: one end's business, nothing of them is on the wire. */
const OWN_ROWS: readonly Row[] = PARAMETER_NAMES.filter(
  (name) => !PLAYED_ELSEWHERE.has(name) && !WIRE_PARAMETERS.some(([other]) => other === name),
).flatMap((name): readonly Row[] => {
  const value = anotherValue(name);
  if (value === undefined) return [];
  const row = { kind: 'parameter', title: `${name}=${value}`, named: named(name), both: {}, harmless: true } as const;
  return [{ ...row, one: { parameters: { [name]: value } }, ends: 'vmferry' }];
});

/** One that is not the default; undefined for lists, which QMP alone has. */
function anotherValue(name: ParameterName): Value | undefined {
  const { type, default: initial } = parameterDeclaration(name);
  switch (type.kind) {
    case 'bool':
      return initial !== true;
    case 'int':
      return Math.min(type.max, type.unit === 'ms' ? Math.max(LONG_MS, Number(initial) + 1) : Number(initial) + 1);
    case 'size':
      return 1 << 26 === initial ? 1 << 25 : 1 << 26;
    case 'enum':
      return type.values.find((value) => value !== initial);
    case 'string':
      return 'another';
    case 'list':
      return undefined;
  }
}

export const ROWS: readonly Row[] = [...CAPABILITY_ROWS, ...POSTCOPY_ROWS, ...WIRE_ROWS, ...OWN_ROWS, ...DEVICE_ROWS];
