/** The arcs against two oracles that share nothing with the table: the uAPI's table of paths by hand, and all simple paths by brute force. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  DEVICE_STATES,
  type DeviceState,
  directArcs,
  hasState,
  migrationFlagsOf,
  pathBetween,
  type StateOptions,
  sessionOf,
  stateNumber,
  stateOfNumber,
  stateOptionsOf,
} from '../../src/vfio/index.ts';

const OPTIONS: readonly StateOptions[] = [false, true].flatMap((p2p) =>
  [false, true].map((preCopy) => ({ p2p, preCopy })),
);
const nameOf = ({ p2p, preCopy }: StateOptions) => `${p2p ? 'P2P' : 'no P2P'}, ${preCopy ? 'PRE_COPY' : 'no PRE_COPY'}`;

const SHORT: Readonly<Record<string, DeviceState>> = {
  S: 'STOP',
  RP: 'RUNNING_P2P',
  R: 'RUNNING',
  PC: 'PRE_COPY',
  PCP: 'PRE_COPY_P2P',
  SC: 'STOP_COPY',
  RES: 'RESUMING',
};

/** vfio_mig_get_next_state, all options: the states after the start; `x` is refused. */
const FULL = `
from  S         RP      R        PC         PCP      SC        RES
S     -         RP      RP,R     RP,R,PC    RP,PCP   SC        RES
RP    S         -       R        R,PC       PCP      S,SC      S,RES
R     RP,S      RP      -        PC         RP,PCP   RP,S,SC   RP,S,RES
PC    R,RP,S    R,RP    R        -          PCP      PCP,SC    R,RP,S,RES
PCP   RP,S      RP      RP,R     PC         -        SC        RP,S,RES
SC    S         S,RP    S,RP,R   x          x        -         S,RES
RES   S         S,RP    S,RP,R   S,RP,R,PC  S,RP,PCP S,SC      -`;

const [head, ...rows] = FULL.trim()
  .split('\n')
  .map((row) => row.split(/\s+/));
const paths = new Map(
  rows.flatMap(([from, ...cells]) =>
    cells.map((cell, i) => [`${SHORT[from!]!}>${SHORT[head![i + 1]!]!}`, cell] as const),
  ),
);

/** The kernel's own rule: walk the full table, pass over what the device does not have. */
function expected(options: StateOptions, from: DeviceState, to: DeviceState): readonly DeviceState[] | undefined {
  if (from === 'ERROR' || to === 'ERROR' || !hasState(options, from) || !hasState(options, to)) return undefined;
  const cell = paths.get(`${from}>${to}`)!;
  if (cell === 'x') return undefined;
  if (cell === '-') return [];
  return cell
    .split(',')
    .map((name) => SHORT[name]!)
    .filter((state) => hasState(options, state));
}

for (const options of OPTIONS) {
  test(`every pair of states: ${nameOf(options)}`, () => {
    for (const from of DEVICE_STATES) {
      for (const to of DEVICE_STATES) {
        const path = pathBetween(options, from, to);
        assert.deepEqual(
          path?.map((arc) => arc.to),
          expected(options, from, to),
          `${from} -> ${to}`,
        );
        path?.forEach((arc, i) => {
          assert.equal(arc.from, i === 0 ? from : path[i - 1]!.to, `${from} -> ${to} is connected`);
          assert.ok(directArcs(options, arc.from).includes(arc.to), `${arc.from} -> ${arc.to} is direct`);
        });
      }
    }
  });

  test(`no legal path is as short as the one that is taken: ${nameOf(options)}`, () => {
    const saving = (state: DeviceState) => ['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY'].includes(state);
    for (const start of DEVICE_STATES) {
      const lengths = new Map<DeviceState, number[]>();
      const walk = (path: readonly DeviceState[]): void => {
        const inner = path.slice(1, -1);
        const last = path.at(-1)!;
        const oneSession = path.every(saving);
        const legal = oneSession || (!inner.some(saving) && !(saving(start) && saving(last)));
        if (path.length > 1 && legal) lengths.set(last, [...(lengths.get(last) ?? []), path.length - 1]);
        for (const next of directArcs(options, last)) if (!path.includes(next)) walk([...path, next]);
      };
      walk([start]);
      for (const to of DEVICE_STATES) {
        if (to === start) continue;
        const found = (lengths.get(to) ?? []).sort((a, b) => a - b);
        assert.equal(pathBetween(options, start, to)?.length, found[0], `${start} -> ${to}`);
        assert.notEqual(found[0] ?? 0, found[1] ?? -1, `${start} -> ${to} has one shortest path`);
      }
    }
  });
}

test('numbers and flags are those of the uAPI', () => {
  const numbers = 'ERROR STOP RUNNING STOP_COPY RESUMING RUNNING_P2P PRE_COPY PRE_COPY_P2P'.split(' ');
  assert.deepEqual(
    [...DEVICE_STATES].sort((a, b) => stateNumber(a) - stateNumber(b)),
    numbers,
  );
  for (const [number, state] of numbers.entries()) assert.equal(stateOfNumber(number), state);
  for (const number of [-1, 8, 0.5, 2 ** 32]) assert.equal(stateOfNumber(number), undefined);
  for (const options of OPTIONS) assert.deepEqual(stateOptionsOf(migrationFlagsOf(options)), options);
  assert.deepEqual(OPTIONS.map(migrationFlagsOf), [1, 5, 3, 7]);
  assert.equal(stateOptionsOf(6), undefined);
  assert.deepEqual(stateOptionsOf(0x11), { p2p: false, preCopy: false });
});

test('a direct arc opens or ends at most one session', () => {
  for (const options of OPTIONS) {
    for (const from of DEVICE_STATES) {
      for (const to of directArcs(options, from)) {
        assert.ok(sessionOf(from) === undefined || sessionOf(to) === undefined || sessionOf(from) === sessionOf(to));
      }
    }
  }
});
