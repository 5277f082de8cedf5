/** `--device DRIVER[,NAME=VALUE]...`, in the manner of QEMU: which device, and what it is like. */
import { InvalidArgumentError, Option } from 'commander';
import { asError } from '../base/index.ts';
import { parseSize } from '../settings/index.ts';
import {
  VF_PARAMETERS,
  VF_PRESETS,
  type VfOptions,
  type VfParameterName,
  type VfPreset,
  vfOptions,
} from '../vfio/index.ts';

export type DeviceOption =
  /** An emulated VF in this process. */
  | { readonly driver: 'vf'; readonly options: VfOptions }
  /** One behind a vfio-user server. */
  | { readonly driver: 'vfio-user'; readonly socket: string };

/** `drivers`: which of them the command takes. A text that does not fit is a usage error. */
export function deviceOption(text: string, drivers: readonly DeviceOption['driver'][]): DeviceOption {
  const [driver = '', ...assignments] = text.split(',');
  const values = new Map(assignments.map(assignmentOf));
  if (!drivers.some((one) => one === driver)) throw wrong(`A device is one of: ${drivers.join(', ')}.`);
  if (driver === 'vfio-user') {
    const socket = values.get('socket');
    if (socket === undefined || values.size > 1) throw wrong('vfio-user wants socket=PATH and nothing else.');
    return { driver, socket };
  }
  return { driver: 'vf', options: vfOf(values) };
}

function assignmentOf(text: string): readonly [string, string] {
  const at = text.indexOf('=');
  if (at <= 0) throw wrong(`NAME=VALUE is wanted, not '${text}'.`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function vfOf(values: ReadonlyMap<string, string>): VfOptions {
  let preset: VfPreset = 'small';
  const given: Partial<Record<VfParameterName, number | boolean>> = {};
  for (const [name, value] of values) {
    if (name === 'preset') {
      if (!Object.hasOwn(VF_PRESETS, value)) throw wrong(`A preset is one of: ${Object.keys(VF_PRESETS).join(', ')}.`);
      preset = value as VfPreset;
    } else if (Object.hasOwn(VF_PARAMETERS, name)) {
      given[name as VfParameterName] = parameterOf(name as VfParameterName, value);
    } else {
      throw wrong(`A vf has preset and: ${Object.keys(VF_PARAMETERS).join(', ')}.`);
    }
  }
  try {
    return vfOptions(given as Parameters<typeof vfOptions>[0], preset);
  } catch (thrown) {
    throw wrong(asError(thrown).message);
  }
}

function parameterOf(name: VfParameterName, value: string): number | boolean {
  const { kind } = VF_PARAMETERS[name];
  if (kind === 'flag') {
    if (value !== 'on' && value !== 'off') throw wrong(`${name} is on or off.`);
    return value === 'on';
  }
  const number = kind === 'bytes' || kind === 'rate' ? parseSize(value) : Number(value);
  if (number === undefined || value === '' || !(number >= 0)) throw wrong(`${name} wants a number, not '${value}'.`);
  return number;
}

function wrong(message: string): InvalidArgumentError {
  return new InvalidArgumentError(message);
}

/** What a vf can be given, for the help of commands that take one. */
export function vfHelp(): string {
  const rows = Object.entries(VF_PARAMETERS).map(([name, { default: value, doc }]) => {
    const shown = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
    return `  ${name.padEnd(16)}  ${doc} (${shown})\n`;
  });
  const presets = Object.keys(VF_PRESETS).join(', ');
  return `\nA vf (sizes and rates as 4096, 64M, 1G; times in ms):\n  preset            ${presets}\n${rows.join('')}`;
}

/** The option of a command that takes one device. */
export function oneDeviceOption(drivers: readonly DeviceOption['driver'][]): Option {
  return new Option(
    '--device <device>',
    `the device: ${drivers.join(' or ')}, with NAME=VALUE behind commas`,
  ).argParser((text: string) => deviceOption(text, drivers));
}
