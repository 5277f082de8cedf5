/** Settings as people type them: `xbzrle=on`, `max-bandwidth=1G`, `downtime-limit=2s`. */
import { type CapabilityName, type CapabilityStatus, isCapability } from './capabilities.ts';
import { settingsError } from './errors.ts';
import { checkValue, expectation, type ParameterType } from './parameter-type.ts';
import { isParameter, type ParameterName, parameterDeclaration } from './parameters.ts';

/** What a list of assignments asks for, in the form QMP's two commands want it. */
export interface Assignments {
  readonly capabilities: readonly CapabilityStatus[];
  readonly parameters: Readonly<Partial<Record<ParameterName, unknown>>>;
}

/**
 * Each text is NAME=VALUE. Names are those of capabilities and parameters of any QEMU from 5.2, whether vmferry supports
 * them or not: the settings may be meant for a QEMU. Throws SettingsError.
 */
export function parseAssignments(texts: readonly string[]): Assignments {
  const capabilities: CapabilityStatus[] = [];
  const parameters: Partial<Record<ParameterName, unknown>> = {};
  for (const text of texts) {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    if (equals < 1) {
      throw settingsError({ code: 'SETTINGS_BAD_ASSIGNMENT', text }, `'${text}' is not of the form NAME=VALUE`);
    }
    const value = text.slice(equals + 1);
    if (isCapability(name)) capabilities.push({ capability: name, state: parseCapability(name, value) });
    else if (isParameter(name)) parameters[name] = parseParameter(name, value);
    else throw settingsError({ code: 'SETTINGS_UNKNOWN', name }, `There is no capability or parameter '${name}'`);
  }
  return { capabilities, parameters };
}

function parseCapability(name: CapabilityName, text: string): boolean {
  const state = parseBool(text);
  if (state === undefined) throw badText(name, text, 'on or off');
  return state;
}

function parseParameter(name: ParameterName, text: string): unknown {
  const { type } = parameterDeclaration(name);
  const value = checkValue(type, parseText(type, text));
  if (value === undefined) throw badText(name, text, expectation(type));
  return value;
}

function parseText(type: ParameterType, text: string): unknown {
  switch (type.kind) {
    case 'int':
      return type.unit === 'ms' ? parseDuration(text) : parseNumber(text);
    case 'size':
      return parseSize(type.unit === 'bytes/s' ? text.replace(/\/s$/, '') : text);
    case 'bool':
      return parseBool(text);
    case 'string':
    case 'enum':
      return text;
    case 'list':
      return text === '' ? [] : text.split(',');
  }
}

export function parseBool(text: string): boolean | undefined {
  if (text === 'on' || text === 'true' || text === 'yes') return true;
  if (text === 'off' || text === 'false' || text === 'no') return false;
  return undefined;
}

const SIZE = /^(\d+(?:\.\d+)?)(?:([KMGTPE])(?:i?B)?|B)?$/i;
const SCALE = { K: 1, M: 2, G: 3, T: 4, P: 5, E: 6 } as const;

/**
 * Bytes of `4096`, `64M`, `1.5GiB`: suffixes K M G T P E are powers of 1024, as in QEMU's size options; no suffix means
 * bytes. undefined if it is not a size or not a whole number of bytes.
 */
export function parseSize(text: string): number | undefined {
  const match = SIZE.exec(text.trim());
  if (match === null) return undefined;
  const suffix = match[2]?.toUpperCase() as keyof typeof SCALE | undefined;
  const bytes = Number(match[1]) * (suffix === undefined ? 1 : 1024 ** SCALE[suffix]);
  return Number.isInteger(bytes) ? bytes : undefined;
}

function parseNumber(text: string): number | undefined {
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** Milliseconds of `300`, `300ms` or `2s`. */
function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(text);
  return match === null ? undefined : Number(match[1]) * (match[2] === 's' ? 1000 : 1);
}

function badText(name: string, text: string, expected: string) {
  return settingsError(
    { code: 'SETTINGS_BAD_VALUE', name, value: text, expected },
    `${name}=${text}: ${name} expects ${expected}`,
  );
}
