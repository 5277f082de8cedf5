/** What an emulated VF is like: its cost model. Declared once; the command line, its help and the checks follow from the table. */
import type { DeviceFeatures, LoadFigures } from '../device.ts';
import { ERRNO, errnoName, vfioError } from '../errors.ts';
import { type Fault, faultOf } from './faults.ts';

const MIB = 1024 * 1024;

/** Unit of a parameter as an operator gives it: bytes, bytes a second (0 = as fast as the processor), ms, a number, on or off. */
export type VfParameterKind = 'bytes' | 'rate' | 'ms' | 'number' | 'flag';

export interface VfParameter {
  readonly kind: VfParameterKind;
  readonly default: number | boolean;
  readonly doc: string;
}

export const VF_PARAMETERS = {
  'state-size': { kind: 'bytes', default: 16 * MIB, doc: 'state of the device, in whole pages of 4 KiB' },
  'initial-size': { kind: 'bytes', default: 0, doc: 'part of it that is read first, in PRE_COPY; 0: all of it' },
  'reinit-ms': {
    kind: 'ms',
    default: 0,
    doc: 'so long after its initial data was read the device is set up anew, once: all of that is new (REINIT); 0: it is not',
  },
  'working-set': { kind: 'bytes', default: MIB, doc: 'part of the state that the running device changes' },
  'state-rate': {
    kind: 'rate',
    default: 20e6,
    doc: 'how fast it changes its state, pages counted whole; 0: not at all',
  },
  'dma-size': { kind: 'bytes', default: 4 * MIB, doc: 'guest memory that it writes to' },
  'dma-rate': {
    kind: 'rate',
    default: 20e6,
    doc: 'how fast it writes to guest memory, pages counted whole; 0: not at all',
  },
  'peer-rate': { kind: 'number', default: 1000, doc: 'writes a second to its peer device, if it has one' },
  precopy: { kind: 'flag', default: true, doc: 'it has PRE_COPY' },
  p2p: { kind: 'flag', default: true, doc: 'it has the P2P states' },
  'dma-logging': { kind: 'flag', default: true, doc: 'it logs its writes to guest memory itself' },
  deadlines: { kind: 'flag', default: true, doc: 'it takes deadlines' },
  'arc-ms': { kind: 'ms', default: 1, doc: 'time of every arc between states' },
  'save-bandwidth': { kind: 'rate', default: 0, doc: 'how fast its state is read' },
  'load-bandwidth': { kind: 'rate', default: 0, doc: 'how fast its state is written' },
  'allocation-ms': { kind: 'ms', default: 0, doc: 'time it takes for its resources when loading begins' },
  'config-load-ms': { kind: 'ms', default: 1, doc: 'time to load its configuration' },
  'config-lock': { kind: 'flag', default: false, doc: 'loading its configuration needs the machine lock' },
  seed: { kind: 'number', default: 1, doc: 'of what it computes' },
} as const satisfies Readonly<Record<string, VfParameter>>;

export type VfParameterName = keyof typeof VF_PARAMETERS;

type Widened<T> = T extends boolean ? boolean : number;
export type VfParameters = { readonly [N in VfParameterName]: Widened<(typeof VF_PARAMETERS)[N]['default']> };

export interface VfOptions extends VfParameters {
  /** Time of single arcs, ms, by `FROM>TO`; the others take `arc-ms`. */
  readonly arcs: Readonly<Record<string, number>>;
  readonly faults: readonly Fault[];
}

/** With 1 VF its thread had a downtime of 274 to 283 ms: less the configuration that is about 200 ms for 100 MiB. */
const VF_100M = {
  'state-size': 100 * MIB,
  'working-set': 8 * MIB,
  precopy: false,
  'arc-ms': 2,
  'save-bandwidth': 520e6,
  'load-bandwidth': 520e6,
  'config-load-ms': 70,
  'config-lock': true,
} as const;

/** The devices of the threads that the project starts from (multifd-device-state-load-thread, precopy-initial-data-switchover). */
export const VF_PRESETS = {
  small: {},
  /** ~100 MiB of state that is read in STOP_COPY, 70 ms to load the configuration under the machine lock. */
  'vf-100m': VF_100M,
  /** The same with 8 MiB that the destination gets while the guest runs, and a configuration that needs no lock. */
  'vf-100m-precopy': { ...VF_100M, precopy: true, 'initial-size': 8 * MIB, 'config-lock': false },
  /** 300 MB, 1480 ms for resources once the first data has come; all of it can be read while the device runs. */
  'vf-300m': {
    'state-size': 300e6 - (300e6 % 4096),
    'working-set': 16 * MIB,
    'arc-ms': 2,
    'save-bandwidth': 3e9,
    'load-bandwidth': 3e9,
    'allocation-ms': 1480,
    'config-load-ms': 10,
  },
} as const satisfies Readonly<Record<string, Partial<VfParameters>>>;

export type VfPreset = keyof typeof VF_PRESETS;

export const VF_PAGE_BYTES = 4096;
const STATE_BYTES_MAX = 4 * 1024 * MIB - VF_PAGE_BYTES;

/** Given ones, then the preset's, then defaults. Throws VFIO_OPTION. */
export function vfOptions(
  given: Partial<VfParameters> & {
    readonly arcs?: Readonly<Record<string, number>>;
    readonly faults?: readonly string[];
  } = {},
  preset: VfPreset = 'small',
): VfOptions {
  const defaults = Object.fromEntries(
    Object.entries(VF_PARAMETERS).map(([name, parameter]) => [name, parameter.default]),
  );
  const { arcs = {}, faults = [], ...parameters } = given;
  const options = { ...defaults, ...VF_PRESETS[preset], ...parameters } as VfParameters;
  for (const name of Object.keys(VF_PARAMETERS) as VfParameterName[]) check(name, options);
  return { ...options, arcs, faults: faults.map(faultOf) };
}

/** Pages of it that are read first. */
export function initialBytesOf(options: VfParameters): number {
  return options['initial-size'] === 0 ? options['state-size'] : options['initial-size'];
}

export function featuresOf(options: VfParameters): DeviceFeatures {
  return {
    states: { p2p: options.p2p, preCopy: options.precopy },
    dmaLogging: options['dma-logging'],
    stopCopySize: true,
    precopyInfo: options.precopy,
    deadlines: options.deadlines,
  };
}

export function loadFiguresOf(options: VfParameters): LoadFigures {
  const rate = options['load-bandwidth'];
  return {
    allocationMs: options['allocation-ms'],
    bytesPerMs: rate === 0 ? Number.POSITIVE_INFINITY : rate / 1000,
    configMs: options['config-load-ms'],
  };
}

function check(name: VfParameterName, options: VfParameters): void {
  const value = options[name];
  const pages = typeof value === 'number' && value % VF_PAGE_BYTES === 0;
  const within = (min: number, max: number) => typeof value === 'number' && value >= min && value <= max;
  const state = options['state-size'];
  const holds = ((): boolean => {
    switch (name) {
      case 'state-size':
        return pages && within(VF_PAGE_BYTES, STATE_BYTES_MAX);
      case 'initial-size':
        return pages && within(0, state);
      case 'working-set':
        return pages && within(VF_PAGE_BYTES, Number.MAX_SAFE_INTEGER);
      case 'dma-size':
        return pages && within(0, STATE_BYTES_MAX);
      case 'seed':
        return Number.isInteger(value) && within(0, 0xffff_ffff);
      default:
        return typeof value === 'boolean' || within(0, Number.MAX_SAFE_INTEGER);
    }
  })();
  if (holds) return;
  const found = String(value);
  const fault = { code: 'VFIO_OPTION', device: '', errno: ERRNO.EINVAL, option: name, found } as const;
  throw vfioError(fault, `VF parameter ${name} cannot be ${found} (${errnoName(ERRNO.EINVAL)})`);
}
