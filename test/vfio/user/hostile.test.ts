/**
 * A server that does not keep to the protocol, at every message of a whole move and in every way: the client ends with an error that says
 * what was wrong, in bounded time, and lets go of everything.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { explain, FerryError } from '../../../src/base/index.ts';
import { isTransportError } from '../../../src/transport/index.ts';
import { type ClientTimeouts, openUserDevice } from '../../../src/vfio/index.ts';
import { DOORBELL_BAR, PAGE, RamDevice } from './ram-device.ts';
import { inFolder, readAll, TestMemory, withServer } from './support.ts';
import { type Twist, twistingRelay } from './twisting-relay.ts';

/** For servers that are silent: so that many of them can be waited for; a busy machine may make others look silent, which is waited for long. */
const IMPATIENT = { connectMs: 5000, commandMs: 300, deviceMs: 300 };
const PATIENT = { connectMs: 20_000, commandMs: 20_000, deviceMs: 20_000 };
/** No run may take longer, whatever the server does, ms. */
const RUN_MS_MAX = 15_000;

/** One whole use of a device: opened, described, with guest memory, saved and loaded. */
async function useDevice(socket: string, timeouts: ClientTimeouts): Promise<void> {
  const device = await openUserDevice({ socket, name: 'device', timeouts });
  try {
    const memory = new TestMemory(0, 0x1_0000);
    const fn = await device.describe();
    await device.attachMemory(memory);
    const registers = Buffer.alloc(24);
    registers.writeBigUInt64LE(0x8000n, 8);
    registers.writeBigUInt64LE(64n, 16);
    await fn.writeRegion(DOORBELL_BAR, 0, registers.subarray(0, 16));
    await fn.writeRegion(DOORBELL_BAR, 16, registers.subarray(16));
    await fn.readRegion(7, 0, Buffer.alloc(256));
    await device.setState('PRE_COPY');
    await readAll(device);
    await device.stopCopySize();
    await device.setState('STOP_COPY');
    const state = await readAll(device);
    await device.setState('RESUMING');
    await device.write(state);
    await device.setState('RUNNING');
    await device.detachMemory();
    await device.reset();
  } finally {
    await device.close();
  }
}

const edit =
  (change: (bytes: Buffer) => Buffer | undefined): Twist =>
  (bytes) => {
    const copy = Buffer.from(bytes);
    return { bytes: change(copy) ?? copy, after: 'go on' };
  };
const cut =
  (length: (bytes: Buffer) => number, after: 'close' | 'silence'): Twist =>
  (bytes) => ({
    bytes: bytes.subarray(0, length(bytes)),
    after,
  });

interface Case {
  readonly twist: Twist;
  /** Faults, the innermost first, that may be the end of it; 'fine': it may go well, where the twist says nothing wrong. */
  readonly ends: RegExp;
}

const BROKEN = /WIRE_|VFIOUSER_(WRONG_REPLY|BAD_REPLY|CLOSED|VERSION)|fine/;
const CASES: Readonly<Record<string, Case>> = {
  'says nothing': { twist: cut(() => 0, 'silence'), ends: /VFIOUSER_SILENT/ },
  'closes instead': { twist: cut(() => 0, 'close'), ends: /VFIOUSER_CLOSED/ },
  'stops in the header': { twist: cut(() => 9, 'silence'), ends: /VFIOUSER_SILENT/ },
  'closes in the header': { twist: cut(() => 9, 'close'), ends: /WIRE_TRUNCATED/ },
  'closes before the last byte': { twist: cut((bytes) => bytes.length - 1, 'close'), ends: /WIRE_TRUNCATED/ },
  'has another id': {
    twist: edit((bytes) => void bytes.writeUInt16LE(bytes.readUInt16LE(0) ^ 0x8000, 0)),
    ends: /VFIOUSER_WRONG_REPLY|VFIOUSER_CLOSED/, // it takes our answer to its own command for a wrong one
  },
  'answers another command': {
    twist: edit((bytes) => void bytes.writeUInt8(bytes[2]! ^ 0x40, 2)),
    ends: /VFIOUSER_WRONG_REPLY|VFIOUSER_CLOSED/,
  },
  'has no size': { twist: edit((bytes) => void bytes.writeUInt32LE(0, 4)), ends: /WIRE_UNEXPECTED_VALUE/ },
  'has an endless size': { twist: edit((bytes) => void bytes.writeUInt32LE(0xffff_ffff, 4)), ends: /WIRE_LIMIT/ },
  'has a byte too many in its size': {
    twist: edit((bytes) => void bytes.writeUInt32LE(bytes.length + 1, 4)),
    ends: /VFIOUSER_SILENT/,
  },
  'lacks its payload': {
    twist: edit((bytes) => {
      bytes.writeUInt32LE(16, 4);
      return bytes.subarray(0, 16);
    }),
    ends: /WIRE_UNEXPECTED_VALUE|VFIO_OPERATION|fine/, // some replies have none; the client refuses a DMA command without
  },
  'is a command instead': {
    twist: edit((bytes) => void bytes.writeUInt8(bytes[8]! & 0xf0, 8)),
    ends: /VFIOUSER_CLOSED|fine/,
  },
  'is of no type': {
    twist: edit((bytes) => void bytes.writeUInt8(bytes[8]! | 0x0f, 8)),
    ends: /WIRE_UNEXPECTED_VALUE/,
  },
  'comes twice': {
    twist: edit((bytes) => Buffer.concat([bytes, bytes])),
    ends: /VFIOUSER_WRONG_REPLY|VFIOUSER_CLOSED|fine/,
  },
  'is full of ones': {
    twist: edit((bytes) => bytes.fill(0xff, 16)),
    ends: new RegExp(`${BROKEN.source}|VFIO_OPERATION`),
  },
  'is full of zeros': {
    twist: edit((bytes) => bytes.fill(0, 16)),
    ends: new RegExp(`${BROKEN.source}|VFIO_OPERATION`),
  },
  'refuses without a number': {
    twist: edit((bytes) => void bytes.writeUInt8(bytes[8]! | 0x20, 8)),
    ends: /VFIOUSER_REFUSED|VFIO_OPERATION|VFIO_ARC_FAILED|VFIO_NO_PATH|fine/, // features that are refused are features that it does not have
  },
};

/** All faults of an error, the outermost first; for what is no fault its class. */
function codesOf(error: unknown): string {
  const codes: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause)
    codes.push(at instanceof FerryError ? at.code : at.constructor.name);
  return codes.join(' < ');
}

async function run(index: number | undefined, { twist, ends }: Case): Promise<number> {
  const device = new RamDevice({ bytes: 2 * PAGE });
  return withServer(device, ({ socket: target }) =>
    inFolder(async (folder) => {
      const socket = join(folder, 'relay.sock');
      const relay = await twistingRelay(socket, target, index, twist);
      const startMs = performance.now();
      try {
        const outcome = await useDevice(socket, ends.source.includes('SILENT') ? IMPATIENT : PATIENT).then(
          () => 'fine',
          (error) => {
            assert.ok(error instanceof FerryError, `an error that is no fault: ${explain(error)}`);
            assert.ok(!isTransportError(error), explain(error));
            return codesOf(error);
          },
        );
        assert.match(outcome, ends);
        assert.ok(performance.now() - startMs < RUN_MS_MAX, 'in bounded time');
        return relay.passed();
      } finally {
        await relay.close();
      }
    }),
  );
}

const HONEST: Case = { twist: (bytes) => ({ bytes, after: 'go on' }), ends: /^fine$/ };

test('nothing is there, or not a server', () =>
  inFolder(async (folder) => {
    const socket = join(folder, 'none.sock');
    await assert.rejects(openUserDevice({ socket }), { code: 'TRANSPORT_REFUSED' });
    const signal = AbortSignal.abort(new Error('enough'));
    await assert.rejects(openUserDevice({ socket, signal }), { message: 'enough' });
  }));

test('an opening is given up when asked to', () =>
  withServer(new RamDevice(), ({ socket: target }) =>
    inFolder(async (folder) => {
      const socket = join(folder, 'relay.sock');
      const relay = await twistingRelay(
        socket,
        target,
        0,
        cut(() => 0, 'silence'),
      );
      const abort = new AbortController();
      const opening = openUserDevice({ socket, signal: abort.signal });
      setTimeout(() => abort.abort(new Error('enough')), 30);
      await assert.rejects(opening, (error) => explain(error).includes('enough'));
      await relay.close();
    }),
  ));

for (const [title, twisted] of Object.entries(CASES)) {
  test(`a message ${title}`, async () => {
    const messages = await run(undefined, HONEST);
    assert.ok(messages > 30);
    const failed: string[] = [];
    const all = Array.from({ length: messages }, (_, index) => index);
    const one = async (index: number) => {
      await run(index, twisted).catch((error) => failed.push(`message ${index}: ${explain(error)}`));
    };
    // Those that end by a timeout wait side by side.
    while (all.length > 0) await Promise.all(all.splice(0, 16).map(one));
    assert.deepEqual(failed, []);
  });
}
