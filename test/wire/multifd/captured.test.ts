/**
 * Channels of real QEMUs: read to the last byte, met where their main streams say, and - where Node itself can undo the compression -
 * the memory that results is what the real destination had. (zstd: test/dataplane/captured.test.ts)
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { constants, inflateSync } from 'node:zlib';
import { Reader } from '../../../src/base/index.ts';
import {
  decodeMultifdInitial,
  MULTIFD_INITIAL_BYTES,
  type MultifdCompression,
  MultifdHeaderDecoder,
  multifdHeaderBytes,
  type StreamRamBlock,
} from '../../../src/wire/index.ts';
import {
  CAPTURED_BLOCK,
  type MultifdCapture,
  multifdCaptures,
  packetsOf,
  replayMain,
} from '../../support/multifd-captures.ts';

const PAGE = 4096;
const HEADER = multifdHeaderBytes(PAGE);

interface Shapes {
  packets: number;
  syncs: number;
  /** Packets that only QEMU 7.2 sends. */
  staleSizes: number;
  syncsWithPages: number;
  emptyWithoutSync: number;
  zeroPages: number;
}

/** One channel, read packet by packet up to a SYNC. */
class ChannelReplay {
  readonly #bytes: Buffer;
  readonly #decoder: MultifdHeaderDecoder;
  readonly #memory: readonly Buffer[];
  readonly #plain: Buffer | undefined;
  readonly #shapes: Shapes;
  readonly #place = { stream: 'multifd', origin: 0 };
  #plainAt = 0;

  constructor(
    channel: Buffer,
    list: readonly StreamRamBlock[],
    memory: readonly Buffer[],
    method: MultifdCompression,
    shapes: Shapes,
  ) {
    this.#bytes = packetsOf(channel);
    this.#decoder = new MultifdHeaderDecoder(PAGE, list, method);
    this.#memory = memory;
    this.#shapes = shapes;
    this.#plain = method === 'zstd' ? undefined : this.#inflated(method);
  }

  get left(): number {
    return this.#bytes.length - this.#place.origin;
  }

  /** All payloads of the channel behind one another, decompressed: the method's stream runs through all of them. */
  #inflated(method: MultifdCompression): Buffer {
    const parts: Buffer[] = [];
    for (let at = 0; at < this.#bytes.length; ) {
      this.#place.origin = at;
      this.#decoder.decode(this.#place, this.#bytes.subarray(at));
      at += HEADER + this.#decoder.payloadBytes;
      parts.push(this.#bytes.subarray(at - this.#decoder.payloadBytes, at));
    }
    this.#place.origin = 0;
    const all = Buffer.concat(parts);
    if (method === 'none' || all.length === 0) return all;
    return inflateSync(all, { finishFlush: constants.Z_SYNC_FLUSH });
  }

  /** Takes packets until one has SYNC. */
  run(): void {
    do {
      const start = this.#place.origin;
      const bytes = this.#bytes.subarray(start);
      assert.ok(bytes.length >= HEADER, 'a packet before the next SYNC');
      this.#decoder.decode(this.#place, bytes);
      this.#place.origin = start + HEADER + this.#decoder.payloadBytes;
      this.#count(bytes);
      this.#apply();
    } while (!this.#decoder.sync);
  }

  #count(header: Buffer): void {
    const { sync, normalPages, zeroPages } = this.#decoder;
    const shapes = this.#shapes;
    shapes.packets++;
    if (sync) shapes.syncs++;
    if (sync && normalPages > 0) shapes.syncsWithPages++;
    if (!sync && normalPages + zeroPages === 0) shapes.emptyWithoutSync++;
    if (normalPages === 0 && header.readUInt32BE(20) !== 0) shapes.staleSizes++;
    shapes.zeroPages += zeroPages;
  }

  #apply(): void {
    const { block, normalPages, zeroPages, offsets } = this.#decoder;
    for (let i = 0; i < normalPages + zeroPages; i++) {
      const into = this.#memory[block]!.subarray(offsets[i]!, offsets[i]! + PAGE);
      if (i >= normalPages) into.fill(0);
      else if (this.#plain !== undefined) {
        assert.equal(this.#plain.copy(into, 0, this.#plainAt, this.#plainAt + PAGE), PAGE);
        this.#plainAt += PAGE;
      }
    }
  }
}

async function replay(capture: MultifdCapture) {
  const shapes: Shapes = { packets: 0, syncs: 0, staleSizes: 0, syncsWithPages: 0, emptyWithoutSync: 0, zeroPages: 0 };
  let memory: Buffer[] = [];
  let channels: ChannelReplay[] = [];
  let names: string[] = [];
  const { points, perRound } = await replayMain(
    capture.main,
    (list) => {
      names = list.map((block) => block.idstr);
      memory = list.map((block) => Buffer.alloc(block.usedLength));
      channels = capture.channels.map((bytes) => new ChannelReplay(bytes, list, memory, capture.method, shapes));
      return {
        page: (block, offset, from, at) => void from.copy(memory[block]!, offset, at, at + PAGE),
        zero: (block, offset) => void memory[block]!.fill(0, offset, offset + PAGE),
        read() {},
      };
    },
    () => {
      for (const channel of channels) channel.run();
    },
  );
  return { shapes, points, perRound, channels, memory: memory[names.indexOf(CAPTURED_BLOCK)]! };
}

for (const capture of multifdCaptures()) {
  test(`${capture.name}: initial packets, every packet, one SYNC a channel at each point, the same memory`, async () => {
    for (const [id, bytes] of capture.channels.entries()) {
      assert.equal(bytes.length, capture.bytes[id]);
      const initial = decodeMultifdInitial(
        new Reader(bytes.subarray(0, MULTIFD_INITIAL_BYTES)),
        capture.channels.length,
      );
      assert.equal(initial.channel, id);
      assert.equal(Buffer.from(initial.uuid).toString('hex'), '5c7e0f1a8d2b4c3e9f60718293a4b5c6');
    }
    const { shapes, points, perRound, channels, memory } = await replay(capture);
    assert.equal(perRound, !capture.name.endsWith('7.2'));
    assert.ok(points >= 5, `${points} points`);
    assert.equal(shapes.syncs, points * capture.channels.length);
    assert.deepEqual(
      channels.map((channel) => channel.left),
      [0, 0, 0],
    );
    if (capture.method !== 'zstd') {
      assert.equal(createHash('sha256').update(memory).digest('hex'), capture.memory);
    }
    if (perRound) {
      assert.ok(shapes.zeroPages > 3000, `${shapes.zeroPages} zero pages in packets`);
      assert.equal(shapes.staleSizes + shapes.syncsWithPages + shapes.emptyWithoutSync, 0);
    } else {
      assert.equal(shapes.zeroPages, 0);
      assert.ok(shapes.staleSizes > 0, 'no packet has the stale size that 7.2 leaves');
    }
  });
}

test('the oddities of 7.2 are among the captures', async () => {
  const old = multifdCaptures().filter(({ name }) => name.endsWith('7.2'));
  const shapes = await Promise.all(old.map(async (capture) => (await replay(capture)).shapes));
  assert.ok(
    shapes.some((one) => one.syncsWithPages > 0),
    'SYNC on a packet with pages',
  );
});
