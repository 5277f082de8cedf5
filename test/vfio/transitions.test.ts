/** Transitions that fail at every arc of every path, in every way; and deadlines, over thousands of seeded devices. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  type Arc,
  ArcFailure,
  type ArcFailureKind,
  DEADLINE_MARGIN_MS,
  DEVICE_STATES,
  type DeviceState,
  DeviceTransitions,
  ERRNO,
  hasState,
  isVfioError,
  pathBetween,
  type StateOptions,
  type VfioFault,
} from '../../src/vfio/index.ts';
import { TestClock } from '../support/device-clock.ts';

const OPTIONS: readonly StateOptions[] = [false, true].flatMap((p2p) =>
  [false, true].map((preCopy) => ({ p2p, preCopy })),
);
const nameOf = (arc: Arc) => `${arc.from}>${arc.to}`;

/** A device that does nothing but note what it did, and fails where it is told to. */
function scripted(
  options: StateOptions,
  fails: (arc: Arc) => ArcFailureKind | 'undo' | 'bug' | undefined = () => undefined,
) {
  const did: string[] = [];
  const clock = new TestClock();
  const transitions = new DeviceTransitions({
    name: 'vf',
    states: options,
    deadlines: true,
    now: () => clock.now(),
    work: {
      costMs: () => 2,
      undoMs: () => 1,
      work: async (arc, until) => {
        const how = fails(arc);
        if (how === 'bug') throw new Error('a mistake');
        await clock.sleep(Math.min(until, clock.now() + (how === 'out of time' ? 1e6 : 2)));
        if (how !== undefined && how !== 'undo') throw new ArcFailure(how, ERRNO.EIO, 'as told');
        did.push(nameOf(arc));
        return async () => {
          await clock.sleep(clock.now() + 1);
          if (how === 'undo') throw new Error('no way back');
          did.push(`undo ${nameOf(arc)}`);
        };
      },
    },
  });
  return { transitions, did, clock };
}

async function failure(call: Promise<unknown>): Promise<VfioFault> {
  try {
    await call;
  } catch (thrown) {
    assert.ok(isVfioError(thrown), String(thrown));
    return thrown.fault;
  }
  return assert.fail('it should have failed');
}

/** Every pair of states with a path, and every arc of it. */
function* cases(): Generator<{
  options: StateOptions;
  from: DeviceState;
  to: DeviceState;
  path: readonly Arc[];
  at: number;
}> {
  for (const options of OPTIONS) {
    for (const from of DEVICE_STATES.filter((state) => state !== 'ERROR' && hasState(options, state))) {
      for (const to of DEVICE_STATES) {
        const path = pathBetween(options, from, to) ?? [];
        for (const at of path.keys()) yield { options, from, to, path, at };
      }
    }
  }
}

/** A scripted device that has got to `from` without trouble. */
async function at(
  from: DeviceState,
  options: StateOptions,
  fails: (arc: Arc) => ArcFailureKind | 'undo' | 'bug' | undefined,
) {
  let armed = false;
  const device = scripted(options, (arc) => (armed ? fails(arc) : undefined));
  await device.transitions.setState(from);
  device.did.length = 0;
  armed = true;
  return device;
}

test('without a deadline, an arc that fails leaves the device in the state before it', async () => {
  let count = 0;
  for (const { options, from, to, path, at: index } of cases()) {
    const arc = path[index]!;
    const { transitions, did } = await at(from, options, (a) => (nameOf(a) === nameOf(arc) ? 'unchanged' : undefined));
    const fault = await failure(transitions.setState(to));
    assert.deepEqual(fault, { code: 'VFIO_ARC_FAILED', device: 'vf', errno: ERRNO.EIO, ...arc, state: arc.from });
    assert.equal(transitions.state, arc.from);
    assert.deepEqual(did, path.slice(0, index).map(nameOf));
    count++;
  }
  assert.ok(count > 150, `${count} arcs`);
});

for (const how of ['broken', 'bug'] as const) {
  test(`an arc that fails as ${how} leaves the device in ERROR, which only a reset ends`, async () => {
    for (const deadlineMs of [undefined, 1000]) {
      for (const { options, from, to, path, at: index } of cases()) {
        const arc = path[index]!;
        const { transitions } = await at(from, options, (a) => (nameOf(a) === nameOf(arc) ? how : undefined));
        const fault = await failure(transitions.setState(to, deadlineMs));
        assert.equal(fault.code, 'VFIO_ARC_FAILED');
        assert.equal(transitions.state, 'ERROR');
        for (const state of DEVICE_STATES) {
          assert.equal((await failure(transitions.setState(state))).code, 'VFIO_NO_PATH');
        }
        transitions.wasReset();
        assert.equal(transitions.state, 'RUNNING');
      }
    }
  });
}

for (const how of ['unchanged', 'out of time'] as const) {
  test(`with a deadline, an arc that is ${how} takes the device all the way back in time`, async () => {
    for (const { options, from, to, path, at: index } of cases()) {
      const arc = path[index]!;
      const { transitions, did, clock } = await at(from, options, (a) => (nameOf(a) === nameOf(arc) ? how : undefined));
      const deadlineMs = 100;
      const start = clock.now();
      const fault = await failure(transitions.setState(to, deadlineMs));
      assert.equal(fault.code, how === 'out of time' ? 'VFIO_DEADLINE_MISSED' : 'VFIO_ARC_FAILED');
      assert.equal(transitions.state, from);
      assert.ok(clock.now() - start <= deadlineMs);
      const done = path.slice(0, index).map(nameOf);
      assert.deepEqual(did, [...done, ...done.toReversed().map((name) => `undo ${name}`)]);
    }
  });
}

test('an arc that cannot be undone leaves ERROR', async () => {
  const { transitions } = await at('RUNNING', { p2p: true, preCopy: true }, (arc) =>
    arc.to === 'STOP_COPY' ? 'unchanged' : 'undo',
  );
  const fault = await failure(transitions.setState('STOP_COPY', 1000));
  assert.equal(fault.code, 'VFIO_ARC_FAILED');
  assert.equal(transitions.state, 'ERROR');
});

test('a deadline that cannot be kept is refused before anything happens, at the point that the estimate names', async () => {
  for (const { options, from, to, path, at: index } of cases()) {
    if (index > 0) continue;
    const { transitions, did } = await at(from, options, () => undefined);
    const neededMs = path.length * 2 + (path.length - 1) + DEADLINE_MARGIN_MS;
    assert.equal(transitions.estimate(to), path.length * 2);
    const fault = await failure(transitions.setState(to, neededMs - 0.5));
    assert.deepEqual(fault, {
      code: 'VFIO_DEADLINE_REFUSED',
      device: 'vf',
      errno: ERRNO.ETIME,
      deadlineMs: neededMs - 0.5,
      neededMs,
    });
    assert.deepEqual(did, []);
    await transitions.setState(to, neededMs);
    assert.equal(transitions.state, to);
  }
});

test('whatever the arcs cost and however late they are: by the deadline it is through or back', async () => {
  const time = fc.integer({ min: 0, max: 20 });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...OPTIONS),
      fc.constantFrom(...DEVICE_STATES),
      fc.constantFrom(...DEVICE_STATES),
      fc.array(fc.record({ cost: time, undo: time, late: fc.constantFrom(0, 0, 0, 5, 50) }), {
        minLength: 4,
        maxLength: 4,
      }),
      fc.integer({ min: 0, max: 120 }),
      async (options, from, to, arcs, deadlineMs) => {
        if (pathBetween(options, 'RUNNING', from) === undefined) return;
        const clock = new TestClock();
        let index = -1;
        let armed = false;
        const step = (arc: Arc) =>
          arcs[(pathBetween(options, from, to) ?? []).findIndex((a) => nameOf(a) === nameOf(arc))]!;
        const transitions = new DeviceTransitions({
          name: 'vf',
          states: options,
          deadlines: true,
          now: () => clock.now(),
          work: {
            costMs: (arc) => (armed ? step(arc).cost : 0),
            undoMs: (arc) => (armed ? step(arc).undo : 0),
            work: async (arc, until) => {
              if (!armed) return async () => {};
              const { cost, late, undo } = step(arc);
              index++;
              const endsAt = clock.now() + cost + late;
              await clock.sleep(Math.min(until, endsAt));
              if (endsAt > until) throw new ArcFailure('out of time', ERRNO.ETIMEDOUT, 'late');
              return () => clock.sleep(clock.now() + undo);
            },
          },
        });
        await transitions.setState(from);
        armed = true;
        const start = clock.now();
        const outcome = await transitions.setState(to, deadlineMs).catch((error) => error);
        const tookMs = clock.now() - start;
        if (!isVfioError(outcome)) {
          assert.equal(transitions.state, to);
          assert.ok(tookMs <= deadlineMs, `through after ${tookMs} of ${deadlineMs} ms`);
        } else if (outcome.fault.code === 'VFIO_DEADLINE_MISSED') {
          assert.equal(transitions.state, from);
          assert.ok(tookMs <= deadlineMs, `back after ${tookMs} of ${deadlineMs} ms`);
        } else {
          assert.ok(['VFIO_DEADLINE_REFUSED', 'VFIO_NO_PATH'].includes(outcome.fault.code));
          assert.equal(index, -1);
          assert.equal(transitions.state, from);
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('latencies are those of the arcs', async () => {
  const { transitions } = await at('RUNNING', { p2p: true, preCopy: true }, () => undefined);
  assert.deepEqual(await transitions.setState('STOP_COPY'), [
    { from: 'RUNNING', to: 'RUNNING_P2P', ms: 2 },
    { from: 'RUNNING_P2P', to: 'STOP', ms: 2 },
    { from: 'STOP', to: 'STOP_COPY', ms: 2 },
  ]);
});
