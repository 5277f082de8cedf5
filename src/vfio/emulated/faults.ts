/**
 * Faults to inject into an emulated VF, at named points: every arc, and every operation of the device. Written `POINT:KIND`, with options:
 *
 *     arc RUNNING>STOP:break      read:fail,errno=EIO,after=3      load config:slow,ms=500
 */
import { ERRNO, errnoName, vfioError } from '../errors.ts';
import { DEVICE_STATES, directArcs } from '../states.ts';

const OPERATIONS = [
  'open',
  'get state',
  'read data',
  'write data',
  'allocate',
  'precopy info',
  'stop-copy size',
  'estimate',
  'start DMA logging',
  'stop DMA logging',
  'report DMA logging',
  'reset',
  'save config',
  'load config',
] as const;

type ArcPoint = `arc ${string}>${string}`;
export type FaultPoint = (typeof OPERATIONS)[number] | ArcPoint;

export function arcPoint({ from, to }: { readonly from: string; readonly to: string }): ArcPoint {
  return `arc ${from}>${to}`;
}

/** Every point where a device may fail: direct arcs of devices with and without options, then operations. */
export const FAULT_POINTS: readonly FaultPoint[] = [
  ...new Set(
    [false, true].flatMap((p2p) =>
      DEVICE_STATES.flatMap((from) => directArcs({ p2p, preCopy: true }, from).map((to) => arcPoint({ from, to }))),
    ),
  ),
  ...OPERATIONS,
];

export const FAULT_KINDS = [
  /** The operation fails with `errno`; nothing has changed. */
  'fail',
  /** It fails, and the device is in ERROR. */
  'break',
  /** It never answers, unless it has a deadline. */
  'hang',
  /** The device's thread ends. */
  'die',
  /** It takes `ms` longer than it should. */
  'slow',
  /** Of `read data`: one byte, though there are more. No failure: borders carry no meaning. */
  'short',
  /** Of `read data`: what should have been read is lost, and the device says that there is nothing. */
  'lose',
  /** Of `read data`: the bytes are not those of its state. Whoever loads them finds out at the next record that should begin there. */
  'corrupt',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** What only reading can do wrong. */
const OF_DATA: readonly FaultKind[] = ['short', 'lose', 'corrupt'];
const CORRUPT_BYTE = 0xa5;

export interface Fault {
  readonly point: FaultPoint;
  readonly kind: FaultKind;
  /** Times that the point is passed before the fault strikes, once. */
  readonly after: number;
  /** fail, break: Linux number. */
  readonly errno: number;
  /** slow. */
  readonly ms: number;
}

/** Throws VFIO_OPTION. */
export function faultOf(text: string): Fault {
  const [head = '', ...options] = text.split(',');
  const colon = head.lastIndexOf(':');
  const point = FAULT_POINTS.find((name) => name === head.slice(0, colon));
  const kind: FaultKind | undefined = FAULT_KINDS.find((name) => name === head.slice(colon + 1));
  const values = new Map(
    options.map((option) => [option.slice(0, option.indexOf('=')), option.slice(option.indexOf('=') + 1)]),
  );
  const number = (name: string, fallback: number) => (values.has(name) ? Number(values.get(name)) : fallback);
  const errno = ERRNO[(values.get('errno') ?? 'EIO') as keyof typeof ERRNO];
  const after = number('after', 0);
  const ms = number('ms', 1000);
  const known = [...values.keys()].every((name) => ['errno', 'after', 'ms'].includes(name));
  const fits = kind !== undefined && (point === 'read data' || !OF_DATA.includes(kind));
  if (point === undefined || !fits || errno === undefined || !known || !(after >= 0) || !(ms >= 0)) {
    const fault = { code: 'VFIO_OPTION', device: '', errno: ERRNO.EINVAL, option: 'fault', found: text } as const;
    throw vfioError(
      fault,
      `fault ${JSON.stringify(text)} is not POINT:KIND[,errno=NAME][,after=N][,ms=N] (${errnoName(ERRNO.EINVAL)})`,
    );
  }
  return { point, kind, errno, after, ms };
}

/** The faults of one device, and how often each point was passed. */
export class Faults {
  readonly #faults: readonly Fault[];
  readonly #passed = new Map<FaultPoint, number>();
  /** How many have struck. */
  struck = 0;

  constructor(faults: readonly Fault[]) {
    this.#faults = faults;
  }

  /** The fault that strikes now, if one does. */
  pass(point: FaultPoint): Fault | undefined {
    const passed = this.#passed.get(point) ?? 0;
    this.#passed.set(point, passed + 1);
    const fault = this.#faults.find((fault) => fault.point === point && fault.after === passed);
    if (fault !== undefined) this.struck++;
    return fault;
  }
}

/** What a device that hangs waits for; `close` answers its callers. */
export const NEVER = new Promise<never>(() => {});

/** What a read gives: `read` puts bytes into the buffer and returns how many. */
export function readWith(fault: Fault | undefined, into: Buffer, read: (into: Buffer) => number): number {
  const count = read(fault?.kind === 'short' ? into.subarray(0, 1) : into);
  if (fault?.kind === 'corrupt') into.fill(CORRUPT_BYTE, 0, count);
  return fault?.kind === 'lose' ? 0 : count;
}
