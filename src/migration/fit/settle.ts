/**
 * How two vmferry ends that differ come together: a value for each setting that both must agree on and that is declared as one that can be settled
 * (`settle` in `settings`). Pure. The destination decides, in its answer; the source looks whether that is something it can do.
 */
import {
  CAPABILITY_NAMES,
  type CapabilityConflict,
  type CapabilityName,
  capabilityDeclaration,
  checkValue,
  findCapabilityConflict,
  isCapability,
  isParameter,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
  type SettingChanges,
  type SettingName,
  type SettleParameter,
} from '../../settings/index.ts';
import type { EndFacts } from './facts.ts';
import { compatNameOf, type DialectName, settleDialect } from './settle-dialect.ts';

/** From this version on the handshake settles differences; before, each is refused. */
export const SETTLES_FROM = 2;

export type SettingValue = boolean | number | string;

/** A setting, or a property of the dialect, in which the ends differed, and what both use. */
export interface Settlement {
  readonly name: SettingName | DialectName;
  readonly value: SettingValue;
  /** As each had it; what it does not know is as by default. */
  readonly source: SettingValue;
  readonly destination: SettingValue;
}

/** For people. */
export function settingText(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return value === '' ? 'not set' : String(value);
}

/** What the destination decides; nothing if either end settles nothing. What cannot be settled stays a difference, which the rules refuse. */
export function settle(source: EndFacts, destination: EndFacts): readonly Settlement[] {
  if (!settles(source) || !settles(destination)) return [];
  const capabilities = settleCapabilities(source, destination);
  const common = withSettled(source, capabilities);
  const parameters = PARAMETER_NAMES.filter((name) => matters(name, common)).flatMap(
    (name) => settleParameter(name, source, destination) ?? [],
  );
  return [...capabilities, ...parameters, ...settleDialect(source, destination)];
}

export function settles({ handshake = 0 }: EndFacts): boolean {
  return handshake >= SETTLES_FROM;
}

/** The facts of an end with what both use. */
export function withSettled(facts: EndFacts, settled: readonly Settlement[]): EndFacts {
  const { capabilities = {}, parameters = {} } = changesOf(settled);
  return {
    ...facts,
    ...(facts.capabilities && { capabilities: { ...facts.capabilities, ...capabilities } }),
    ...(facts.parameters && { parameters: { ...facts.parameters, ...parameters } }),
  };
}

/** What is settled, as settings of either end. */
export function changesOf(settled: readonly Settlement[]): SettingChanges {
  const of = (is: (name: string) => boolean) =>
    Object.fromEntries(settled.filter(({ name }) => is(name)).map(({ name, value }) => [name, value]));
  const compat = settled.flatMap(({ name, value }) => {
    const property = compatNameOf(name);
    return property === undefined ? [] : [[property, value] as const];
  });
  return {
    capabilities: of(isCapability),
    parameters: of(isParameter),
    compat: Object.fromEntries(compat),
  } as SettingChanges;
}

/** Whether the parameter does anything with the capabilities that are on. */
export function matters(name: ParameterName, { capabilities = {} }: EndFacts): boolean {
  const { partOf } = parameterDeclaration(name);
  return partOf === undefined || partOf.some((capability) => capabilities[capability] === true);
}

/**
 * What the ends have come to: the dialect, and the settings that the destination has told, by name; `refused`: those that this source cannot do, with why. A name that it does not know is nothing
 * to it: at a source that knows no such setting it is as by default.
 */
export function acceptSettled(
  source: EndFacts,
  destination: EndFacts,
  told: Readonly<Record<string, SettingValue>>,
): { readonly settled: readonly Settlement[]; readonly refused: readonly string[] } {
  const settled: Settlement[] = [];
  const refused: string[] = [];
  for (const [name, value] of Object.entries(told)) {
    if (!isCapability(name) && !isParameter(name)) continue;
    const ends = { source: valueAt(source, name), destination: valueAt(destination, name) };
    if (canDo(source, name, value)) settled.push({ name, value, ...ends });
    else refused.push(`${name}: the destination says ${value}, which the source (${ends.source}) cannot do`);
  }
  if (settles(destination)) settled.push(...settleDialect(source, destination));
  const conflict = conflictIn(namesOn(withSettled(source, settled)));
  if (conflict !== undefined) refused.push(`${conflict.name}: at the source it does not go with ${conflict.other}`);
  return { settled, refused };
}

function canDo(facts: EndFacts, name: SettingName, value: SettingValue): boolean {
  if (value === valueAt(facts, name)) return true;
  if (isCapability(name)) {
    if (capabilityDeclaration(name).settle === undefined || typeof value !== 'boolean') return false;
    return value ? facts.capabilities?.[name] !== undefined : capabilityDeclaration(name).settle === 'both';
  }
  const { settle: rule, type } = parameterDeclaration(name);
  return rule !== undefined && checkValue(type, value) !== undefined && takes(facts, name, rule, value);
}

function settleCapabilities(source: EndFacts, destination: EndFacts): readonly Settlement[] {
  const on = { source: new Set(namesOn(source)), destination: new Set(namesOn(destination)) };
  const settled: Settlement[] = [];
  for (const name of CAPABILITY_NAMES) {
    const { settle: rule, ends } = capabilityDeclaration(name);
    const [here, there] = [on.source.has(name), on.destination.has(name)];
    if (rule === undefined || here === there || (ends === 'implied' && !here)) continue;
    const value = here ? follows(name, destination, on.destination) : follows(name, source, on.source);
    if (!value && rule === 'follow') continue;
    settled.push({ name, value, source: here, destination: there });
    for (const end of [on.source, on.destination]) {
      if (value) end.add(name);
      else end.delete(name);
    }
  }
  return settled;
}

/** Whether an end that has it off switches it on because the other has it on. */
function follows(name: CapabilityName, end: EndFacts, on: ReadonlySet<CapabilityName>): boolean {
  if (end.capabilities?.[name] === undefined || isGiven(end, name)) return false;
  return conflictIn([...on, name]) === undefined;
}

/** Whoever has shaken hands has a return path, whether the capability is on or not. */
function conflictIn(on: Iterable<CapabilityName>): CapabilityConflict | undefined {
  return findCapabilityConflict(new Set([...on, 'return-path']));
}

function settleParameter(name: ParameterName, source: EndFacts, destination: EndFacts): Settlement | undefined {
  const { settle: rule, type } = parameterDeclaration(name);
  const ends = { source: valueAt(source, name), destination: valueAt(destination, name) };
  if (rule === undefined || ends.source === ends.destination) return undefined;
  if (checkValue(type, ends.source) === undefined || checkValue(type, ends.destination) === undefined) return undefined;
  const value = common(name, rule, source, destination);
  return value === undefined ? undefined : { name, value, ...ends };
}

function common(
  name: ParameterName,
  rule: SettleParameter,
  source: EndFacts,
  destination: EndFacts,
): SettingValue | undefined {
  const [here, there] = [valueAt(source, name), valueAt(destination, name)];
  const onlyThere = isGiven(destination, name) && !isGiven(source, name);
  const onlyHere = isGiven(source, name) && !isGiven(destination, name);
  switch (rule.rule) {
    case 'least': {
      const [given, other] = onlyThere ? [there, source] : [here, destination];
      const most = onlyHere || onlyThere ? mostOf(other, name) : Number(there);
      return Math.min(Number(given), most);
    }
    case 'common': {
      const { default: initial } = parameterDeclaration(name);
      const wanted = [...(onlyThere ? [there, here] : [here, there]), initial as SettingValue];
      return wanted.find((value) => [source, destination].every((end) => takes(end, name, rule, value)));
    }
  }
}

function takes(facts: EndFacts, name: ParameterName, rule: SettleParameter, value: SettingValue): boolean {
  if (rule.rule === 'least') return typeof value === 'number' && value <= mostOf(facts, name);
  const values = facts.takes?.[name];
  return Array.isArray(values) ? values.includes(value) : value === parameterDeclaration(name).default;
}

function mostOf({ takes: told }: EndFacts, name: ParameterName): number {
  const most = told?.[name];
  return typeof most === 'number' ? most : Number(parameterDeclaration(name).default);
}

function valueAt({ capabilities, parameters }: EndFacts, name: SettingName): SettingValue {
  if (isCapability(name)) return capabilities?.[name] === true;
  return (parameters?.[name] ?? parameterDeclaration(name).default) as SettingValue;
}

function isGiven({ given = [] }: EndFacts, name: SettingName): boolean {
  return given.includes(name);
}

function namesOn({ capabilities = {} }: EndFacts): ReadonlySet<CapabilityName> {
  return new Set(CAPABILITY_NAMES.filter((name) => capabilities[name] === true));
}
