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
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

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
  const kind = FAULT_KINDS.find((name) => name === head.slice(colon + 1));
  const values = new Map(
    options.map((option) => [option.slice(0, option.indexOf('=')), option.slice(option.indexOf('=') + 1)]),
  );
  const number = (name: string, fallback: number) => (values.has(name) ? Number(values.get(name)) : fallback);
  const errno = ERRNO[(values.get('errno') ?? 'EIO') as keyof typeof ERRNO];
  const after = number('after', 0);
  const ms = number('ms', 1000);
  const known = [...values.keys()].every((name) => ['errno', 'after', 'ms'].includes(name));
  if (point === undefined || kind === undefined || errno === undefined || !known || !(after >= 0) || !(ms >= 0)) {
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

  constructor(faults: readonly Fault[]) {
    this.#faults = faults;
  }

  /** The fault that strikes now, if one does. */
  pass(point: FaultPoint): Fault | undefined {
    const passed = this.#passed.get(point) ?? 0;
    this.#passed.set(point, passed + 1);
    return this.#faults.find((fault) => fault.point === point && fault.after === passed);
  }
}
