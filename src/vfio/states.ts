/**
 * States of the VFIO migration protocol v2, and the arcs between them.
 *
 * A device moves along direct arcs; any other target is reached by the shortest legal path over them, which the device walks by itself.
 * P2P and PRE_COPY are options of a device, discovered and never assumed; states that it does not have are not on its paths.
 *
 * @spec linux include/uapi/linux/vfio.h (enum vfio_device_mig_state), drivers/vfio vfio_mig_get_next_state
 */
export type StateOption = 'p2p' | 'preCopy';
export type StateOptions = Readonly<Record<StateOption, boolean>>;

/** What the data of a state belongs to: moves within a session keep its stream, moves out of it end it. */
export type Session = 'saving' | 'loading';

interface StateFacts {
  readonly number: number;
  readonly needs: readonly StateOption[];
  readonly session: Session | undefined;
  readonly arcs: readonly DeviceState[];
}

const TABLE = {
  ERROR: { number: 0, needs: [], session: undefined, arcs: [] },
  STOP: { number: 1, needs: [], session: undefined, arcs: ['RUNNING', 'RUNNING_P2P', 'STOP_COPY', 'RESUMING'] },
  RUNNING: { number: 2, needs: [], session: undefined, arcs: ['STOP', 'RUNNING_P2P', 'PRE_COPY'] },
  STOP_COPY: { number: 3, needs: [], session: 'saving', arcs: ['STOP'] },
  RESUMING: { number: 4, needs: [], session: 'loading', arcs: ['STOP'] },
  RUNNING_P2P: { number: 5, needs: ['p2p'], session: undefined, arcs: ['RUNNING', 'STOP', 'PRE_COPY_P2P'] },
  PRE_COPY: { number: 6, needs: ['preCopy'], session: 'saving', arcs: ['RUNNING', 'STOP_COPY', 'PRE_COPY_P2P'] },
  PRE_COPY_P2P: {
    number: 7,
    needs: ['preCopy', 'p2p'],
    session: 'saving',
    arcs: ['RUNNING_P2P', 'PRE_COPY', 'STOP_COPY'],
  },
} as const satisfies Record<string, { number: number; needs: readonly StateOption[]; session: unknown; arcs: unknown }>;

export type DeviceState = keyof typeof TABLE;

const FACTS: Readonly<Record<DeviceState, StateFacts>> = TABLE;

export const DEVICE_STATES = Object.keys(TABLE) as readonly DeviceState[];

/** A device with P2P goes through its P2P states instead. */
const ONLY_WITHOUT_P2P: readonly (readonly [DeviceState, DeviceState])[] = [
  ['RUNNING', 'STOP'],
  ['STOP', 'RUNNING'],
  ['PRE_COPY', 'STOP_COPY'],
];

/** Bits of the MIGRATION feature. */
export const MIGRATION_FLAG = { STOP_COPY: 1, P2P: 2, PRE_COPY: 4 } as const;

/** A direct arc. */
export interface Arc {
  readonly from: DeviceState;
  readonly to: DeviceState;
}

export function stateNumber(state: DeviceState): number {
  return FACTS[state].number;
}

/** Undefined for a number that is no state known here. */
export function stateOfNumber(number: number): DeviceState | undefined {
  return DEVICE_STATES.find((state) => FACTS[state].number === number);
}

export function sessionOf(state: DeviceState): Session | undefined {
  return FACTS[state].session;
}

/** Undefined if the device cannot migrate (STOP_COPY is not set). Flags that are not known here are options that are not used. */
export function stateOptionsOf(flags: number): StateOptions | undefined {
  if ((flags & MIGRATION_FLAG.STOP_COPY) === 0) return undefined;
  return { p2p: (flags & MIGRATION_FLAG.P2P) !== 0, preCopy: (flags & MIGRATION_FLAG.PRE_COPY) !== 0 };
}

export function migrationFlagsOf({ p2p, preCopy }: StateOptions): number {
  return MIGRATION_FLAG.STOP_COPY | (p2p ? MIGRATION_FLAG.P2P : 0) | (preCopy ? MIGRATION_FLAG.PRE_COPY : 0);
}

export function hasState(options: StateOptions, state: DeviceState): boolean {
  return FACTS[state].needs.every((option) => options[option]);
}

/** The states that follow `from` by one arc. */
export function directArcs(options: StateOptions, from: DeviceState): readonly DeviceState[] {
  if (!hasState(options, from)) return [];
  return FACTS[from].arcs.filter(
    (to) => hasState(options, to) && !(options.p2p && ONLY_WITHOUT_P2P.some(([a, b]) => a === from && b === to)),
  );
}

/**
 * The arcs that lead from one state to another: none if they are the same, undefined if there is no legal way (the uAPI's EINVAL).
 * A path between two saving states is one session and stays in it; any other has no saving state between its ends.
 */
export function pathBetween(options: StateOptions, from: DeviceState, to: DeviceState): readonly Arc[] | undefined {
  return PATHS[migrationFlagsOf(options)]?.get(from)?.get(to);
}

type Paths = ReadonlyMap<DeviceState, ReadonlyMap<DeviceState, readonly Arc[]>>;

/** By flags of the MIGRATION feature. */
const PATHS: Readonly<Record<number, Paths>> = Object.fromEntries(
  [false, true].flatMap((p2p) =>
    [false, true].map((preCopy) => {
      const options = { p2p, preCopy };
      return [migrationFlagsOf(options), new Map(DEVICE_STATES.map((from) => [from, pathsFrom(options, from)]))];
    }),
  ),
);

/** Breadth first, so the path that reaches a state first is a shortest one. */
function pathsFrom(options: StateOptions, start: DeviceState): Map<DeviceState, readonly Arc[]> {
  const paths = new Map<DeviceState, readonly Arc[]>();
  if (start === 'ERROR' || !hasState(options, start)) return paths;
  paths.set(start, []);
  // A map's iteration meets what is added meanwhile.
  for (const [from, path] of paths) {
    for (const to of directArcs(options, from)) {
      if (!paths.has(to) && passes(start, from, to)) paths.set(to, [...path, { from, to }]);
    }
  }
  return paths;
}

/** Whether a path from `start` may go on from `at` to `to`. */
function passes(start: DeviceState, at: DeviceState, to: DeviceState): boolean {
  return at === start || isSaving(at) === (isSaving(start) && isSaving(to));
}

function isSaving(state: DeviceState): boolean {
  return sessionOf(state) === 'saving';
}
