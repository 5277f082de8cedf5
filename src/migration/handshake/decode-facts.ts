/** What an end says in the handshake: nothing of the other end is believed before its shape and its bounds are checked. */
import { unexpected } from '../../wire/index.ts';
import type { BlockFacts, EndFacts, LimitFacts, LoadFacts, SettingValue, VfioFacts } from '../fit/index.ts';

/** Names, and texts of any kind, characters. */
const TEXT_MAX = 255;
/** Entries of a list, or members of an object. */
const COUNT_MAX = 4096;
/** Of a time, ms: a day. */
const TIME_MAX = 24 * 3600 * 1000;

/** The body of a frame: the facts of who says it, and more members. */
export interface Said {
  readonly facts: EndFacts;
  /** Of the destination: settings by name, as both are to use them. */
  readonly settled?: Readonly<Record<string, SettingValue>> | undefined;
}

type Check<T> = (value: unknown, path: string) => T;

/** Throws WireError: which member is not what it should be. Members that this version does not know are ignored. */
export function decodeSaid(body: Uint8Array, stream: string): Said {
  const fail = (path: string, expected: string, found: unknown): never => {
    throw unexpected(
      { stream },
      0,
      `handshake / ${path}`,
      'value',
      expected,
      JSON.stringify(found)?.slice(0, 80) ?? 'none',
    );
  };
  const text: Check<string> = (value, path) =>
    typeof value === 'string' && value.length <= TEXT_MAX ? value : fail(path, `a text of at most ${TEXT_MAX}`, value);
  const flag: Check<boolean> = (value, path) =>
    typeof value === 'boolean' ? value : fail(path, 'true or false', value);
  const size: Check<number> = (value, path) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
      ? value
      : fail(path, 'a whole number', value);
  const record = (value: unknown, path: string): Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length <= COUNT_MAX
      ? (value as Record<string, unknown>)
      : fail(path, `an object of at most ${COUNT_MAX} members`, value);
  const listOf =
    <T>(check: Check<T>): Check<readonly T[]> =>
    (value, path) =>
      Array.isArray(value) && value.length <= COUNT_MAX
        ? value.map((one, i) => check(one, `${path}[${i}]`))
        : fail(path, `a list of at most ${COUNT_MAX}`, value);
  const mapOf =
    <T>(check: Check<T>): Check<Readonly<Record<string, T>>> =>
    (value, path) =>
      Object.fromEntries(
        Object.entries(record(value, path)).map(([name, one]) => [text(name, path), check(one, `${path}.${name}`)]),
      );
  const takes: Check<number | readonly string[]> = (value, path) =>
    typeof value === 'number' ? size(value, path) : listOf(text)(value, path);
  const scalar: Check<SettingValue> = (value, path) =>
    typeof value === 'number' && Number.isFinite(value)
      ? value
      : typeof value === 'boolean'
        ? value
        : text(value, path);
  const block: Check<BlockFacts> = (value, path) => {
    const { name, used, max, pageSize } = record(value, path);
    return {
      name: text(name, `${path}.name`),
      used: size(used, `${path}.used`),
      max: size(max, `${path}.max`),
      pageSize: size(pageSize, `${path}.pageSize`),
    };
  };
  const time: Check<number> = (value, path) =>
    typeof value === 'number' && value >= 0 && value <= TIME_MAX ? value : fail(path, `0 to ${TIME_MAX} ms`, value);
  const rate: Check<number> = (value, path) =>
    typeof value === 'number' && value > 0 && Number.isFinite(value) ? value : fail(path, 'a rate', value);
  const load: Check<LoadFacts> = (value, path) => {
    const { ms, bytesPerMs } = record(value, path);
    return { ms: time(ms, `${path}.ms`), ...optional({ bytesPerMs: rate }, { bytesPerMs }, path) };
  };
  const limits: Check<LimitFacts> = (value, path) => {
    const { packetBytes, bufferBytes, blocks } = record(value, path);
    return {
      packetBytes: size(packetBytes, `${path}.packetBytes`),
      bufferBytes: size(bufferBytes, `${path}.bufferBytes`),
      blocks: size(blocks, `${path}.blocks`),
    };
  };
  const device: Check<VfioFacts> = (value, path) => {
    const members = record(value, path);
    const { name, section, precopy, p2p } = members;
    return {
      name: text(name, `${path}.name`),
      section: text(section, `${path}.section`),
      precopy: flag(precopy, `${path}.precopy`),
      p2p: flag(p2p, `${path}.p2p`),
      ...optional({ instance: size, initialData: flag, deadlines: flag, stateBytes: size, load }, members, path),
    };
  };
  const members = record(parse(body, fail), 'body');
  const facts: EndFacts = optional(
    {
      handshake: size,
      runState: text,
      machineType: text,
      uuid: text,
      capabilities: mapOf(flag),
      parameters: mapOf(scalar),
      dialect: mapOf(text),
      given: listOf(text),
      takes: mapOf(takes),
      ram: listOf(block),
      vfio: listOf(device),
      stopMs: time,
      load,
      freeMemory: size,
      freeDisk: size,
      limits,
    },
    members,
    '',
  );
  return { facts, ...optional<Pick<Said, 'settled'>>({ settled: mapOf(scalar) }, members, '') };
}

/** Those of the members that are there, each checked. */
function optional<T extends object>(
  checks: { readonly [N in keyof T]: Check<T[N]> },
  members: Readonly<Record<string, unknown>>,
  path: string,
): Partial<T> {
  const names = (Object.keys(checks) as (keyof T & string)[]).filter((name) => members[name] !== undefined);
  const at = (name: string) => (path === '' ? name : `${path}.${name}`);
  return Object.fromEntries(names.map((name) => [name, checks[name](members[name], at(name))])) as Partial<T>;
}

function parse(body: Uint8Array, fail: (path: string, expected: string, found: unknown) => never): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return fail('body', 'JSON in UTF-8', body.length);
  }
}
