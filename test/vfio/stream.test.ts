/** The emulated VF's stream: any way to cut it loads the same, nothing that is damaged is taken for whole. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { BadStream, Loader } from '../../src/vfio/emulated/loader.ts';
import { Saver } from '../../src/vfio/emulated/saver.ts';
import { REGISTERS_BYTES } from '../../src/vfio/emulated/stream-format.ts';
import { VfState } from '../../src/vfio/emulated/vf-state.ts';

const PAGES = 12;
const STATE_BYTES = PAGES * 4096;

function state(seed: number, operations = 0): VfState {
  const made = new VfState(STATE_BYTES, 8 * 4096, seed);
  made.fill();
  made.run(operations);
  return made;
}

/** What happens to a device while it is read: sizes of reads, and operations in between. */
const life = fc.record({
  seed: fc.integer({ min: 0, max: 0xffff_ffff }),
  initialPages: fc.integer({ min: 1, max: PAGES }),
  before: fc.nat(200),
  reads: fc.array(
    fc.record({
      size: fc.integer({ min: 1, max: 20_000 }),
      operations: fc.nat(30),
      renews: fc.constantFrom(false, false, false, true),
    }),
    { maxLength: 12 },
  ),
  last: fc.integer({ min: 1, max: 30_000 }),
  cuts: fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 8 }),
});
type Life = typeof life extends fc.Arbitrary<infer T> ? T : never;

function lived({ seed, initialPages, before, reads, last }: Life): { stream: Buffer; source: VfState } {
  const source = state(seed, before);
  const saver = new Saver(source, initialPages * 4096, 0, () => Buffer.alloc(REGISTERS_BYTES, 7));
  const parts: Buffer[] = [];
  const read = (size: number) => {
    const into = Buffer.alloc(size);
    const count = saver.read(into);
    parts.push(into.subarray(0, count));
    return count;
  };
  for (const { size, operations, renews } of reads) {
    if (renews) {
      saver.renew();
      assert.ok(saver.initialBytes >= initialPages * 4096, 'all of it is new');
      assert.equal(saver.dirtyBytes, 0, 'changes count from then on');
    }
    assert.deepEqual([saver.takeRenewed(), saver.takeRenewed()], [renews, false]);
    const { initialBytes, dirtyBytes } = saver;
    read(size);
    assert.ok(saver.initialBytes <= initialBytes, 'initial bytes only fall');
    assert.ok(initialBytes > 0 || saver.dirtyBytes <= dirtyBytes + 16, 'reading does not make anything dirty');
    source.run(operations);
  }
  saver.stop();
  const expected = saver.stopBytes;
  let rest = 0;
  for (let count = read(last); count > 0; count = read(last)) rest += count;
  assert.ok(rest >= expected && rest <= expected + PAGES * 16, `${rest} bytes, ${expected} expected`);
  assert.equal(saver.read(Buffer.alloc(8)), 0);
  return { stream: Buffer.concat(parts), source };
}

function load(stream: Buffer, cuts: readonly number[]): { loader: Loader; loaded: VfState } {
  const loaded = state(99);
  const loader = new Loader(loaded, 0);
  for (let at = 0, i = 0; at < stream.length; i++) {
    const cut = cuts[i % cuts.length]!;
    loader.write(stream.subarray(at, at + cut));
    at += cut;
  }
  return { loader, loaded };
}

test('a device that changes while it is read, read and written in any pieces, arrives bit for bit', () => {
  fc.assert(
    fc.property(life, (lives) => {
      const { stream, source } = lived(lives);
      const { loader, loaded } = load(stream, lives.cuts);
      loader.finish();
      assert.ok(loaded.bytes.equals(source.bytes));
      assert.deepEqual(loader.registers, Buffer.alloc(REGISTERS_BYTES, 7));
      loaded.operations = source.operations;
      assert.equal(loaded.verify().pagesBad, 0);
      assert.equal(loader.offset, stream.length);
    }),
    { numRuns: 500 },
  );
});

test('every beginning of a stream that is not the whole of it is refused at the end', () => {
  const { stream } = lived({ seed: 5, initialPages: 4, before: 10, reads: [], last: 5000, cuts: [1] });
  for (let length = 0; length < stream.length; length += length < 200 || stream.length - length < 5000 ? 1 : 997) {
    const { loader } = load(stream.subarray(0, length), [4096]);
    assert.throws(() => loader.finish(), BadStream, `after ${length} bytes`);
  }
  assert.throws(() => load(Buffer.concat([stream, Buffer.alloc(1)]), [4096]), BadStream);
});

test('bytes that are no stream: BadStream or not whole, and never outside of the state', () => {
  const { stream } = lived({ seed: 5, initialPages: 4, before: 10, reads: [], last: 5000, cuts: [1] });
  const damage = fc.record({
    at: fc.nat(stream.length - 1),
    byte: fc.nat(255),
    cut: fc.integer({ min: 1, max: 5000 }),
  });
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), (damages) => {
      const bytes = Buffer.from(stream);
      for (const { at, byte } of damages) bytes[at] = byte;
      try {
        load(bytes, [damages[0]!.cut]).loader.finish();
      } catch (thrown) {
        assert.ok(thrown instanceof BadStream, String(thrown));
      }
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
      assert.throws(() => load(Buffer.from(bytes), [100]).loader.finish(), BadStream);
    }),
  );
});

test('a spoiled session stays spoiled', () => {
  const loader = new Loader(state(1), 0);
  assert.throws(() => loader.write(Buffer.alloc(64)), BadStream);
  assert.throws(() => loader.write(Buffer.alloc(0)), BadStream);
  assert.throws(() => loader.finish(), BadStream);
});

test('the device of another size, or with another DMA memory, is refused', () => {
  const { stream } = lived({ seed: 5, initialPages: 4, before: 10, reads: [], last: 5000, cuts: [1] });
  const other = new Loader(new VfState(STATE_BYTES + 4096, 4096, 1), 0);
  assert.throws(() => other.write(stream), BadStream);
  const dma = new Loader(state(1), 4096);
  assert.throws(() => dma.write(stream), BadStream);
});
