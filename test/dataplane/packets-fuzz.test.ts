/**
 * Hostile channels: packets of pages, SYNC and device state, damaged anywhere, through the loop that the receiving threads run. Whatever comes, the
 * outcome is an end or a typed error with a place inside the channel, and nothing is written outside the RAM.
 */
import assert from 'node:assert/strict';
import { closeSync, writeSync } from 'node:fs';
import test from 'node:test';
import { controlOf, STOP, Word } from '../../src/dataplane/control-words.ts';
import { stateReceiverOf } from '../../src/dataplane/device-state/receive-state.ts';
import { StateQueue } from '../../src/dataplane/device-state/state-queue.ts';
import { StateRefusal } from '../../src/dataplane/errors.ts';
import { RECEIVED, receivePacket, receiverOf } from '../../src/dataplane/receive-loop.ts';
import type { MemoryRam } from '../../src/machine/index.ts';
import { deviceStateHeader, isWireError, MULTIFD_FLAG, writeDeviceBuffer } from '../../src/wire/index.ts';
import { damage, generator } from '../fuzz/damage.ts';
import { PAGE, packet, pairs } from './support.ts';

const RUNS = 3000;
const PAGES = 4;
const INITIAL = 64;
const GUARD = 0x77;
const DEVICES = [{ idstr: 'vf0/vfio', instance: 0 }];

/** The block between two pages that nothing may touch. */
const memory = new SharedArrayBuffer((PAGES + 2) * PAGE);
const ram: MemoryRam = {
  kind: 'memory',
  pageSize: PAGE,
  isZero: false,
  blocks: [{ idstr: 'block0', usedLength: PAGES * PAGE, memory, byteOffset: PAGE }],
};

function state(index: number, isConfig: boolean, length: number): Buffer {
  const header = deviceStateHeader(DEVICES[0]!);
  writeDeviceBuffer(header, index, isConfig, length);
  return Buffer.concat([header, Buffer.alloc(length, index)]);
}

const STREAM = Buffer.concat([
  packet(2, 1),
  state(1, false, 700),
  packet(0, 0, MULTIFD_FLAG.SYNC),
  state(0, false, 0),
  state(2, true, 300),
  packet(1, 3),
  packet(0, 0, MULTIFD_FLAG.SYNC),
]);

/** To the end of the channel; what ended it otherwise. */
function receive(bytes: Buffer, isLate: boolean): { packets: number; thrown: unknown } {
  const [source, fd] = pairs(1)[0]!;
  const control = controlOf();
  if (isLate) Atomics.store(control.words, Word.STOP, STOP.AT_END);
  // More slots than buffers: one thread alone must never have to wait for another.
  const queue = StateQueue.make(DEVICES, 1, { slots: 64, queuedMax: 64 });
  const start = {
    channel: 0,
    name: '',
    line: { fd },
    cutIsEnd: false,
    ram,
    compression: 'none',
    control: control.shared,
    offset: INITIAL,
  } as const;
  const receiver = receiverOf({ ...start, state: undefined }, control, stateReceiverOf(queue, [undefined]));
  let packets = 0;
  try {
    writeSync(source, bytes);
    closeSync(source);
    for (;;) {
      const received = receivePacket(receiver);
      if (received === RECEIVED.END || received === RECEIVED.LATE_PAGES) return { packets, thrown: undefined };
      packets++;
    }
  } catch (thrown) {
    return { packets, thrown };
  } finally {
    closeSync(fd);
  }
}

test('undamaged it is read to its end', () => {
  assert.deepEqual(receive(STREAM, false), { packets: 7, thrown: undefined });
  assert.deepEqual(receive(STREAM, true), { packets: 0, thrown: undefined });
});

test(`${RUNS} damaged channels end with a typed error, or well`, () => {
  const seed = 20261128;
  const random = generator(seed);
  const all = new Uint8Array(memory);
  let errors = 0;
  for (let run = 0; run < RUNS; run++) {
    all.fill(GUARD);
    const bytes = damage(STREAM, random);
    const { packets, thrown } = receive(bytes.subarray(0, 100_000), run % 5 === 0);
    const where = `seed ${seed}, run ${run}`;
    assert.ok(packets <= bytes.length / 12 + 1, where);
    for (const guard of [all.subarray(0, PAGE), all.subarray((PAGES + 1) * PAGE)]) {
      assert.ok(
        guard.every((byte) => byte === GUARD),
        `${where}: outside the block`,
      );
    }
    if (thrown === undefined) continue;
    errors++;
    if (thrown instanceof StateRefusal) continue;
    assert.ok(isWireError(thrown), `${where}: ${thrown instanceof Error ? thrown.stack : thrown}`);
    const { fault } = thrown;
    assert.ok(fault.stream === 'multifd 0' && fault.offset >= INITIAL && fault.offset <= INITIAL + bytes.length, where);
  }
  assert.ok(errors > RUNS / 4, `${errors} of ${RUNS} were noticed`);
});
