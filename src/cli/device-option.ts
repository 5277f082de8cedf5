/** `--device DRIVER[,NAME=VALUE]...`, in the manner of QEMU: which device, and what it is like. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { asError } from '../base/index.ts';
import { parseSize } from '../settings/index.ts';
import {
  DEVICES_MAX,
  type DeviceSpec,
  VF_PARAMETERS,
  VF_PRESETS,
  type VfOptions,
  type VfParameterName,
  type VfPreset,
  vfOptions,
} from '../vfio/index.ts';

export type DeviceOption = DeviceSpec;

/** `drivers`: which of them the command takes. A text that does not fit is a usage error. */
export function deviceOption(text: string, drivers: readonly DeviceOption['driver'][]): DeviceOption {
  const [driver = '', ...assignments] = text.split(',');
  const values = new Map(assignments.map(assignmentOf));
  if (!drivers.some((one) => one === driver)) throw wrong(`A device is one of: ${drivers.join(', ')}.`);
  if (driver === 'vfio-user') {
    return userDeviceOf(values);
  }
  return { driver: 'vf', options: vfOf(values) };
}

/** A device that writes to guest memory is given some that the guest's own program leaves alone. */
const USER_DMA_BYTES = 4 * 1024 * 1024;
const PAGE_BYTES = 4096;

function userDeviceOf(values: ReadonlyMap<string, string>): DeviceOption {
  const { socket, 'dma-size': dma, ...others } = Object.fromEntries(values);
  if (socket === undefined || Object.keys(others).length > 0) throw wrong('vfio-user has socket=PATH and dma-size.');
  const dmaBytes = dma === undefined ? USER_DMA_BYTES : parseSize(dma);
  if (dmaBytes === undefined || dmaBytes % PAGE_BYTES !== 0) throw wrong(`dma-size wants whole pages, not '${dma}'.`);
  return { driver: 'vfio-user', socket, dmaBytes };
}

function assignmentOf(text: string): readonly [string, string] {
  const at = text.indexOf('=');
  if (at <= 0) throw wrong(`NAME=VALUE is wanted, not '${text}'.`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function vfOf(values: ReadonlyMap<string, string>): VfOptions {
  const { given, preset } = parametersOf(values);
  return checked(given, preset);
}

function checked(given: GivenParameters, preset: VfPreset, faults: readonly string[] = []): VfOptions {
  try {
    return vfOptions({ ...(given as Parameters<typeof vfOptions>[0]), faults }, preset);
  } catch (thrown) {
    throw wrong(asError(thrown).message);
  }
}

type GivenParameters = Partial<Record<VfParameterName, number | boolean>>;

function parametersOf(values: ReadonlyMap<string, string>): { given: GivenParameters; preset: VfPreset } {
  let preset: VfPreset = 'small';
  const given: GivenParameters = {};
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
  return { given, preset };
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
  const user = `  socket            of the server\n  dma-size          guest memory of its own (${USER_DMA_BYTES})\n`;
  return `\nA vfio-user:\n${user}\nA vf (sizes and rates as 4096, 64M, 1G; times in ms):\n  preset            ${presets}\n${rows.join('')}`;
}

/** The option of a command that takes one device. */
export function oneDeviceOption(drivers: readonly DeviceOption['driver'][]): Option {
  return new Option(
    '--device <device>',
    `the device: ${drivers.join(' or ')}, with NAME=VALUE behind commas`,
  ).argParser((text: string) => deviceOption(text, drivers));
}

/** What `--vf`, `--device` and `--vf-fault` of one command line say together. */
export interface DeviceFlags {
  readonly vf?: string;
  readonly device?: readonly DeviceOption[];
  readonly vfFault?: readonly string[];
}

/** Options of a command whose machine has any number of devices. */
export function addDeviceOptions(command: Command): Command {
  const devices: DeviceOption[] = [];
  const faults: string[] = [];
  return command
    .option('--vf <count>', 'emulated VFs, all alike but for their seeds; with NAME=VALUE behind commas', vfs)
    .addOption(
      new Option('--device <device>', 'a vf or vfio-user, with NAME=VALUE behind commas; as often as wanted').argParser(
        (text: string) => {
          devices.push(deviceOption(text, ['vf', 'vfio-user']));
          return devices;
        },
      ),
    )
    .addOption(
      new Option('--vf-fault <fault>', "a fault to inject: 'vf0 read data:fail,errno=EIO,after=3'").argParser(
        (text: string) => {
          faults.push(text);
          return faults;
        },
      ),
    )
    .addHelpText('after', vfHelp())
    .hook('preAction', (_, run) => {
      // What only all of them together show to be wrong is a usage error like the others.
      try {
        devicesOf(run.opts<DeviceFlags>());
      } catch (thrown) {
        run.error(`error: ${asError(thrown).message}`);
      }
    });
}

export function vfs(text: string): string {
  devicesOf({ vf: text });
  return text;
}

/** The text of `--vf` with a preset; what it says itself comes first. */
export function withPreset(vf: string, preset: VfPreset): string {
  const [count, ...assignments] = vf.split(',');
  return [count, `preset=${preset}`, ...assignments].join();
}

/** The devices in the order of their slots: those of `--vf` first. A text that does not fit is a usage error. */
export function devicesOf({ vf, device = [], vfFault = [] }: DeviceFlags): readonly DeviceOption[] {
  const [count = '', ...assignments] = vf === undefined ? ['0'] : vf.split(',');
  if (!/^\d{1,3}$/.test(count)) throw wrong(`A number of VFs is wanted, not '${count}'.`);
  const { given, preset } = parametersOf(new Map(assignments.map(assignmentOf)));
  const { seed } = checked(given, preset);
  const alike = Array.from({ length: Number(count) }, (_, i): DeviceOption => {
    return { driver: 'vf', options: checked({ ...given, seed: seed + i }, preset) };
  });
  const devices = [...alike, ...device];
  if (devices.length > DEVICES_MAX) throw wrong(`A machine has slots for ${DEVICES_MAX} devices.`);
  return withFaults(devices, vfFault);
}

/** VFs are called vf0, vf1 ... in the order of their slots. */
function withFaults(devices: readonly DeviceOption[], faults: readonly string[]): readonly DeviceOption[] {
  const left = new Set(faults);
  let vfs = 0;
  const spoiled = devices.map((device): DeviceOption => {
    if (device.driver !== 'vf') return device;
    const name = `vf${vfs++} `;
    const own = faults.filter((text) => text.startsWith(name));
    for (const text of own) left.delete(text);
    const texts = own.map((text) => text.slice(name.length));
    return { driver: 'vf', options: { ...device.options, faults: checked({}, 'small', texts).faults } };
  });
  for (const text of left)
    throw wrong(`'${text}' begins with none of the machine's VFs (vf0, vf1 ...; it has ${vfs}).`);
  return spoiled;
}
