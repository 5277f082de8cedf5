/** Options that several commands have, and the texts they take. A text that does not fit is a usage error. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { asError } from '../base/index.ts';
import {
  type Assignments,
  OBJECT_KINDS,
  type ObjectOptions,
  parseAssignments,
  parseCompat,
  parseObject,
  parseSize,
  Settings,
  type SettingsOptions,
} from '../settings/index.ts';
import { parseAddress } from '../transport/index.ts';

export const jsonOption = () => new Option('--json', 'JSON Lines on standard output: progress, then one result');

/** `--set NAME=VALUE`, as often as wanted; a name set twice gets its last value. */
export function setOption(description: string): Option {
  const texts: string[] = [];
  return new Option('--set <name=value>', description).argParser((text: string) => {
    texts.push(text);
    return usage(() => parseAssignments(texts));
  });
}

/** `--object KIND,id=ID[,NAME=VALUE]...`, as often as wanted. */
export function objectOption(): Option {
  const objects: ObjectOptions[] = [];
  const kinds = OBJECT_KINDS.join(', ');
  return new Option('--object <kind,id=id,...>', `as QEMU's -object: ${kinds}`).argParser((text: string) => {
    objects.push(usage(() => parseObject(text)));
    return objects;
  });
}

/** What `--set` gave, over a command's own parameters. */
export function settingsOf(set: Assignments | undefined, parameters: Assignments['parameters'] = {}): Assignments {
  return { capabilities: set?.capabilities ?? [], parameters: { ...parameters, ...set?.parameters } };
}

export const postcopyOption = () =>
  new Option('--postcopy', 'let the guest run at once; its memory follows as it is wanted (sets postcopy-ram)');

/** What `--postcopy` needs, over what `--set` gave. */
export function withPostcopy(settings: Assignments, postcopy: boolean | undefined): Assignments {
  if (postcopy !== true) return settings;
  return { ...settings, capabilities: [...settings.capabilities, { capability: 'postcopy-ram', state: true }] };
}

/** `--compat NAME=VALUE`, as often as wanted. */
export function compatOption(): Option {
  const texts: string[] = [];
  return new Option(
    '--compat <name=value>',
    'compat property of the machine type, switched by hand as developers do',
  ).argParser((text: string) => {
    texts.push(text);
    return usage(() => parseCompat(texts));
  });
}

/** The settings of an engine in this process. Throws SettingsError for what vmferry, or the machine type, cannot do. */
export function engineSettings({ capabilities, parameters }: Assignments, options: SettingsOptions = {}): Settings {
  const settings = new Settings(options);
  settings.setCapabilities(capabilities);
  settings.setParameters(parameters);
  return settings;
}

/** A migration URI, checked here and passed on as it was typed. */
export function uri(text: string): string {
  usage(() => parseAddress(text));
  return text;
}

export const ramOption = () => new Option('--ram <size>', 'guest memory').argParser(size).default(1024 ** 3, '1G');

export const rateOption = () =>
  new Option('--dirty-rate <bytes/s>', 'bytes of pages the guest writes per second, or max')
    .argParser((text) => (text === 'max' ? text : size(text)))
    .default(200 * 1024 ** 2, '200M');

export const qmpOption = () => new Option('--qmp <path>', 'unix socket for QMP: to follow and to cancel the migration');

export const listenOption = (what: string) =>
  new Option('--uri <uri>', `${what} (default: a private unix socket); tcp:127.0.0.1:0 takes a free port`).argParser(
    uri,
  );

/** Bytes: 4096, 64M, 1.5G. */
export function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError('A size in bytes is wanted: 4096, 64M, 1G ...');
  return bytes;
}

export function count(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('A whole number is wanted.');
  return Number(text);
}

export function positive(text: string): number {
  const value = count(text);
  if (value === 0) throw new InvalidArgumentError('At least 1 is wanted.');
  return value;
}

export function fraction(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1))
    throw new InvalidArgumentError('A number from 0 to 1 is wanted.');
  return value;
}

/** 16 bytes of the usual text form. */
export function uuid(text: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) {
    throw new InvalidArgumentError('A UUID is wanted: 01234567-89ab-cdef-0123-456789abcdef.');
  }
  return Uint8Array.from(Buffer.from(text.replaceAll('-', ''), 'hex'));
}

export function usage<T>(parse: () => T): T {
  try {
    return parse();
  } catch (thrown) {
    throw new InvalidArgumentError(asError(thrown).message);
  }
}

/** Each line of `lines` is a command line; a text after `#` says what it does. */
export function examples(command: Command, lines: readonly string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${lines.map((line) => `  $ vmferry ${line}\n`).join('')}`);
}
