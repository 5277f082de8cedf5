/** Where a device can fail in a migration, and how: every operation and every arc that its side of a migration passes, each in every way. */
import { FAULT_KINDS, type FaultKind, type FaultPoint, pathBetween, type StateOptions } from '../../src/vfio/index.ts';

export type Side = 'source' | 'destination';

/** How the migration goes, but for the fault. */
export const COURSES = ['to its end', 'cancelled while the guest runs', 'cancelled when it is stopped'] as const;
export type Course = (typeof COURSES)[number];

export interface FaultCase {
  readonly side: Side;
  readonly states: StateOptions;
  readonly course: Course;
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
  const cases: FaultCase[] = [];
  for (const states of ALL_STATES) {
    for (const side of ['source', 'destination'] as const) {
      for (const course of COURSES) {
        for (const point of pointsOf(side, states, course)) {
          for (const kind of FAULT_KINDS) {
            if (OF_DATA.includes(kind) && point !== 'read data') continue;
            cases.push({ side, states, course, point, kind });
          }
        }
      }
    }
  }
  return cases;
}

function pointsOf(side: Side, states: StateOptions, course: Course): readonly FaultPoint[] {
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
