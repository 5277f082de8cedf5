/**
 * 10,000 random deliveries of random rounds over random channels, packet by packet through the loop that the threads run: under SYNC all end in
 * the same memory; the same deliveries with SYNC ignored do not.
 */
import assert from 'node:assert/strict';
import { closeSync, writeSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { controlOf } from '../../src/dataplane/control-words.ts';
import { RECEIVED, type Receiver, receivePacket, receiverOf } from '../../src/dataplane/receive-loop.ts';
import { MULTIFD_FLAG, writeMultifdHeader } from '../../src/wire/index.ts';
import { bytesOf, HEADER, PAGE, pairs, ramOf } from './support.ts';

const RUNS = 10_000;
const PAGES = 6;
const CHANNELS = 3;
const NAME = Buffer.from('block0');

/** Numbers below `end`, from one seed. */
function random(seed: number): (end: number) => number {
  let state = seed | 1;
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % end;
  };
}

/** Version 0 is a zero page; else a page's first word is its version, as small packets are read and written faster. */
interface Channel {
  readonly source: number;
  readonly receiver: Receiver;
  /** Packets that have been written and not been read. */
  pending: number;
  parked: boolean;
}

class Link {
  readonly ram = ramOf(PAGES);
  readonly channels: readonly Channel[];
  readonly #memory = new Int32Array(this.ram.blocks[0]!.memory);
  readonly #packet = Buffer.alloc(HEADER + PAGES * PAGE);
  readonly #offsets = new Float64Array(PAGES);

  constructor(t: TestContext) {
    this.channels = pairs(CHANNELS).map(([source, fd], channel) => {
      t.after(() => {
        closeSync(source);
        closeSync(fd);
      });
      const control = controlOf();
      const start = {
        channel,
        name: '',
        line: { fd },
        cutIsEnd: false,
        ram: this.ram,
        compression: 'none',
        control: control.shared,
        offset: 64,
        state: undefined,
      } as const;
      return { source, receiver: receiverOf(start, control), pending: 0, parked: false };
    });
  }

  versions(): number[] {
    return Array.from({ length: PAGES }, (_, page) => this.#memory[(page * PAGE) / 4]!);
  }

  clear(): void {
    bytesOf(this.ram, 0).fill(0);
  }

  send(channel: Channel, pages: readonly number[], version: number, flags: number): void {
    const packet = this.#packet;
    for (const [index, page] of pages.entries()) {
      this.#offsets[index] = page * PAGE;
      packet.writeInt32LE(version, HEADER + index * PAGE);
    }
    const normal = version === 0 ? 0 : pages.length;
    const name = pages.length === 0 ? undefined : NAME;
    const bytes = normal * PAGE;
    writeMultifdHeader(packet.subarray(0, HEADER), flags, name, normal, pages.length - normal, bytes, 0, this.#offsets);
    writeSync(channel.source, packet, 0, HEADER + bytes);
    channel.pending++;
  }
}

/** Sends all rounds, then delivers in random order; returns whether the memory is that of the last versions. */
function run(link: Link, seed: number, disciplined: boolean): boolean {
  const next = random(seed);
  const expected = new Array<number>(PAGES).fill(0);
  link.clear();
  const rounds = 2 + next(2);
  for (let round = 1; round <= rounds; round++) {
    const version = next(8) === 0 ? 0 : seed * 8 + round;
    const dirty = expected.map((_, page) => page).filter(() => next(3) > 0);
    for (const page of dirty) expected[page] = version;
    while (dirty.length > 0) {
      const batch = dirty.splice(0, 1 + next(3));
      link.send(link.channels[next(CHANNELS)]!, batch, version, 0);
    }
    // SYNC may ride on pages (7.2), but need not; here it never does.
    for (const channel of link.channels) link.send(channel, [], 0, MULTIFD_FLAG.SYNC);
  }
  for (;;) {
    const ready = link.channels.filter((channel) => channel.pending > 0 && !channel.parked);
    if (ready.length > 0) {
      const channel = ready[next(ready.length)]!;
      channel.pending--;
      channel.parked = receivePacket(channel.receiver) === RECEIVED.SYNC && disciplined;
    } else if (link.channels.some((channel) => channel.parked)) {
      // All have met, as `meet` has it.
      assert.ok(link.channels.every((channel) => channel.parked));
      for (const channel of link.channels) channel.parked = false;
    } else return expected.every((version, page) => link.versions()[page] === version);
  }
}

test(`${RUNS} interleavings end in identical memory`, (t) => {
  const link = new Link(t);
  for (let seed = 1; seed <= RUNS; seed++) assert.ok(run(link, seed, true), `seed ${seed}`);
});

test('without the discipline many do not', (t) => {
  const link = new Link(t);
  let lost = 0;
  for (let seed = 1; seed <= 500; seed++) if (!run(link, seed, false)) lost++;
  assert.ok(lost > 50, `${lost} of 500`);
});
