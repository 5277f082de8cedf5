/** The mover of a device: with and without pre-copy, and every step failing on either side: the device then runs where it was. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { type DeviceMoveEvent, type DeviceMoveFault, type DeviceState, moveDevice } from '../../src/vfio/index.ts';
import { PAGE, RamDevice } from './user/ram-device.ts';

function devices(options: { readonly preCopy?: boolean } = {}): readonly [RamDevice, RamDevice] {
  const pair = [
    new RamDevice({ bytes: 100 * PAGE, ...options }),
    new RamDevice({ bytes: 100 * PAGE, ...options }),
  ] as const;
  for (let at = 0; at < pair[0].memory.length; at += 4) pair[0].memory.writeUInt32LE(at * 7, at);
  return pair;
}

for (const { title, has, wants } of [
  { title: 'with pre-copy', has: true, wants: undefined },
  { title: 'without pre-copy, which it has', has: true, wants: false },
  { title: 'without pre-copy, which it lacks', has: false, wants: true },
]) {
  test(`a device moves ${title}`, async () => {
    const [source, destination] = devices({ preCopy: has });
    const before = Buffer.from(source.memory);
    const events: DeviceMoveEvent[] = [];
    const result = await moveDevice(source, destination, {
      ...(wants === undefined ? {} : { preCopy: wants }),
      tell: (event) => events.push(event),
    });
    assert.ok(destination.memory.equals(before));
    assert.deepEqual([await source.state(), await destination.state()], ['STOP', 'RUNNING']);
    const early = has && wants !== false;
    assert.equal(result.preCopyBytes > 0, early);
    assert.equal(result.preCopyBytes + result.stopCopyBytes, 100 * (PAGE + 8) + 8);
    assert.equal(result.rounds, events.filter(({ kind }) => kind === 'round').length);
    assert.equal(events.at(-1)?.kind, 'stopped');
    assert.ok(result.downtimeMs <= result.totalMs);
  });
}

test('a device that changes faster than the limit allows is read again, and stopped in the end', async () => {
  const [source, destination] = devices();
  const rounds: number[] = [];
  const result = await moveDevice(source, destination, {
    downtimeLimitMs: 0,
    tell: (event) => {
      if (event.kind !== 'round') return;
      rounds.push(event.bytes);
      source.memory.writeUInt32LE(event.round, 8);
      source.touch(0, 3 * PAGE);
    },
  });
  assert.ok(rounds.length === 30 && rounds.slice(1).every((bytes) => bytes === 3 * (PAGE + 8)));
  assert.equal(result.stopCopyBytes, 3 * (PAGE + 8) + 8);
  assert.ok(destination.memory.equals(source.memory));
});

interface Failure {
  readonly title: string;
  readonly spoil: (source: RamDevice, destination: RamDevice) => void;
  /** Where they are afterwards. */
  readonly source: DeviceState;
  readonly destination: DeviceMoveFault['destination'];
}

const failing =
  (which: 0 | 1, arc: string, state?: DeviceState) =>
  (...pair: readonly [RamDevice, RamDevice]) =>
    void pair[which].failing.set(arc, { errno: 5, ...(state === undefined ? {} : { state }) });

const FAILURES: readonly Failure[] = [
  {
    title: 'the destination does not load',
    spoil: failing(1, 'STOP>RESUMING'),
    source: 'RUNNING',
    destination: 'reset',
  },
  { title: 'no pre-copy after all', spoil: failing(0, 'RUNNING>PRE_COPY'), source: 'RUNNING', destination: 'reset' },
  { title: 'it cannot be stopped', spoil: failing(0, 'PRE_COPY>STOP_COPY'), source: 'RUNNING', destination: 'reset' },
  {
    title: 'it breaks when stopped',
    spoil: failing(0, 'PRE_COPY>STOP_COPY', 'ERROR'),
    source: 'ERROR',
    destination: 'reset',
  },
  { title: 'the stream is refused', spoil: failing(1, 'RESUMING>STOP'), source: 'RUNNING', destination: 'reset' },
  {
    title: 'the destination breaks',
    spoil: failing(1, 'RESUMING>STOP', 'ERROR'),
    source: 'RUNNING',
    destination: 'reset',
  },
  {
    title: 'the source does not end its session',
    spoil: failing(0, 'STOP_COPY>STOP'),
    source: 'STOP_COPY',
    destination: 'reset',
  },
  {
    title: 'the destination does not start',
    spoil: failing(1, 'STOP>RUNNING'),
    source: 'RUNNING',
    destination: 'reset',
  },
  {
    title: 'reading fails',
    spoil: (source) => {
      source.read = () => Promise.reject(new Error('unreadable'));
    },
    source: 'RUNNING',
    destination: 'reset',
  },
  {
    title: 'writing fails',
    spoil: (_source, destination) => {
      destination.write = () => Promise.reject(new Error('unwritable'));
    },
    source: 'RUNNING',
    destination: 'reset',
  },
  {
    title: 'the destination does not answer its start, and nobody knows',
    spoil: (_source, destination) => {
      destination.beforeArc = async (arc) => {
        if (arc !== 'STOP>RUNNING') return;
        destination.state = () => Promise.reject(new Error('gone'));
        throw new Error('gone');
      };
    },
    source: 'STOP',
    destination: 'unknown',
  },
  {
    title: 'the answer to its start is lost, but it runs',
    spoil: (_source, destination) => {
      const setState = destination.setState.bind(destination);
      destination.setState = async (target) => {
        const arcs = await setState(target);
        if (target === 'RUNNING') throw new Error('no answer');
        return arcs;
      };
    },
    source: 'STOP',
    destination: 'RUNNING',
  },
];

for (const { title, spoil, ...expected } of FAILURES) {
  test(`a move fails: ${title}`, async () => {
    const [source, destination] = devices();
    const before = Buffer.from(source.memory);
    spoil(source, destination);
    await assert.rejects(moveDevice(source, destination), (error) => {
      assert.ok(error instanceof FerryError && error.cause !== undefined);
      assert.deepEqual(error.fault, { code: 'DEVICE_MOVE_FAILED', ...expected });
      return true;
    });
    assert.ok(source.memory.equals(before), 'what the source has is untouched');
  });
}

test('a move that is given up leaves the device where it was', async () => {
  const [source, destination] = devices();
  const abort = new AbortController();
  const moving = moveDevice(source, destination, {
    signal: abort.signal,
    tell: ({ kind }) => {
      if (kind === 'stopped') abort.abort(new Error('enough'));
    },
  });
  await assert.rejects(moving, { fault: { code: 'DEVICE_MOVE_FAILED', source: 'RUNNING', destination: 'reset' } });
});
