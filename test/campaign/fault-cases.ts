/** Where a device can fail in a migration, and how: every operation and every arc that its side of a migration passes, each in every way. */
import { FAULT_KINDS, type FaultKind, type FaultPoint, pathBetween, type StateOptions } from '../../src/vfio/index.ts';

const SIDES = ['source', 'destination'] as const;
export type Side = (typeof SIDES)[number];

/** How the migration goes, but for the fault. */
export const COURSES = ['to its end', 'cancelled while the guest runs', 'cancelled when it is stopped'] as const;
export type Course = (typeof COURSES)[number];

/** How the state of the devices goes: in the main stream, or on multifd channels. */
export const STATE_WAYS = ['stream', 'channels'] as const;
export type StateWay = (typeof STATE_WAYS)[number];

export interface FaultCase {
  readonly side: Side;
  readonly states: StateOptions;
  readonly course: Course;
  readonly way: StateWay;
  readonly point: FaultPoint;
  readonly kind: FaultKind;
}

const OF_DATA: readonly FaultKind[] = ['short', 'lose', 'corrupt'];
const OPERATIONS: Readonly<Record<Side, readonly FaultPoint[]>> = {
  source: [
    'get state',
    'read data',
    'stop-copy size',
    'precopy info',
    'start DMA logging',
    'report DMA logging',
    'stop DMA logging',
    'save config',
  ],
  destination: ['get state', 'write data', 'allocate', 'load config'],
};

export const ALL_STATES: readonly StateOptions[] = [true, false].flatMap((p2p) =>
  [true, false].map((preCopy) => ({ p2p, preCopy })),
);

/** All of them: what a device does of its own does not depend on P2P, its arcs do. */
export function faultCases(): readonly FaultCase[] {
  const trials = ALL_STATES.flatMap((states) =>
    SIDES.flatMap((side) => COURSES.map((course) => ({ states, side, course }))),
  );
  const points = trials.flatMap((trial) => pointsOf(trial).map((point) => ({ ...trial, point })));
  const faults = points.flatMap((one) => kindsOf(one.point).map((kind) => ({ ...one, kind })));
  return faults.flatMap((one) => STATE_WAYS.map((way) => ({ ...one, way })));
}

function kindsOf(point: FaultPoint): readonly FaultKind[] {
  return FAULT_KINDS.filter((kind) => point === 'read data' || !OF_DATA.includes(kind));
}

function pointsOf({ side, states, course }: Pick<FaultCase, 'side' | 'states' | 'course'>): readonly FaultPoint[] {
  const arcs = (...path: Parameters<typeof pathBetween>[1][]): FaultPoint[] =>
    path
      .slice(1)
      .flatMap((to, i) => pathBetween(states, path[i]!, to)!)
      .map((arc): FaultPoint => `arc ${arc.from}>${arc.to}`);
  const operations = states.p2p ? OPERATIONS[side].filter((name) => name !== 'precopy info' || states.preCopy) : [];
  const begins = states.preCopy ? (['RUNNING', 'PRE_COPY'] as const) : (['RUNNING'] as const);
  if (course === 'to its end') {
    if (side === 'source') return [...operations, ...arcs(...begins, 'STOP_COPY', 'STOP')];
    return [...operations, ...arcs('RUNNING', 'RESUMING', 'STOP', 'RUNNING')];
  }
  if (side === 'destination') return ['reset'];
  if (course === 'cancelled while the guest runs') return states.preCopy ? arcs('PRE_COPY', 'RUNNING') : [];
  return arcs('STOP_COPY', 'STOP', 'RUNNING');
}
