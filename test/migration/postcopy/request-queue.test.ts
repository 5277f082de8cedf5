import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError } from '../../../src/base/index.ts';
import { RemainingRam } from '../../../src/migration/postcopy/source/remaining-ram.ts';
import { RequestQueue } from '../../../src/migration/postcopy/source/request-queue.ts';
import { bitmapOf, blockOf, PAGE } from './ram.ts';

const all = (count: number) => Array.from({ length: count }, (_, page) => page);

/** `a`: 40 pages of 4 KiB, `b`: 4 pages of 32 KiB (8 target pages each). */
function setUp(dirtyA: Iterable<number> = all(40), dirtyB: Iterable<number> = all(32)) {
  const blocks = [blockOf('a', 40), blockOf('b', 32, 8, 1)];
  const ram = new RemainingRam(blocks, [bitmapOf(40, dirtyA), bitmapOf(32, dirtyB)], PAGE);
  return { ram, queue: new RequestQueue(ram, PAGE) };
}

function drained(queue: RequestQueue): string[] {
  const place = { block: 0, page: 0 };
  const places: string[] = [];
  while (queue.next(place)) places.push(`${place.block}/${place.page}`);
  return places;
}

test('first asked, first served; a request without a name means the block named last', () => {
  const { queue } = setUp();
  assert.equal(queue.add('a', 5 * PAGE, PAGE), 1);
  assert.equal(queue.add(undefined, 2 * PAGE, PAGE), 1);
  assert.equal(queue.add('b', 8 * PAGE, 8 * PAGE), 1);
  assert.equal(queue.add(undefined, 0, 8 * PAGE), 1);
  assert.equal(queue.add('a', 9 * PAGE, PAGE), 1);
  assert.equal(queue.length, 5);
  assert.deepEqual(drained(queue), ['0/5', '0/2', '1/8', '1/0', '0/9']);
  assert.equal(queue.length, 0);
});

test('a request may ask for several pages; what is clean, sent or asked for already is left out', () => {
  const { ram, queue } = setUp([1, 2, 3, 7]);
  assert.equal(queue.add('a', 0, 4 * PAGE), 3);
  assert.equal(queue.add('a', 2 * PAGE, 6 * PAGE), 1);
  ram.take(0, 2);
  assert.deepEqual(drained(queue), ['0/1', '0/3', '0/7']);
  ram.take(0, 1);
  assert.equal(queue.add('a', PAGE, PAGE), 0, 'sent');
  assert.equal(queue.add('a', 3 * PAGE, PAGE), 1, 'taken out of the queue but not sent: it may be asked for again');
});

test('tiers: what is not open is left out and keeps its place', () => {
  const { ram } = setUp();
  const queue = new RequestQueue(ram, PAGE, [0, 1]);
  queue.add('b', 0, 16 * PAGE);
  queue.add('a', 5 * PAGE, 2 * PAGE);
  queue.add('b', 16 * PAGE, 8 * PAGE);
  const place = { block: 0, page: 0 };
  const next = (open?: number) => (queue.next(place, open) ? `${place.block}/${place.page}` : undefined);
  assert.deepEqual([next(0b01), next(0b11), next(0b10)], ['0/5', '1/0', '1/8']);
  assert.equal(queue.length, 2);
  assert.deepEqual([next(0b11), next(0b01), next(0), next(0b10)], ['0/6', undefined, undefined, '1/16']);
  assert.equal(queue.length, 0);
});

test('a new return path begins with nothing asked for and no block named', () => {
  const { queue } = setUp();
  queue.add('a', 0, PAGE);
  queue.clear();
  assert.equal(queue.length, 0);
  assert.throws(() => queue.add(undefined, 0, PAGE), /no block was named/);
  assert.equal(queue.add('a', 0, PAGE), 1);
});

const REFUSED: readonly [string, string | undefined, number, number, RegExp][] = [
  ['before any block was named', undefined, 0, PAGE, /no block was named/],
  ['an unknown block', 'c', 0, PAGE, /'c'.*no such block/],
  ['a start inside a page', 'a', 1, PAGE, /does not begin at a page/],
  ['a start inside a host page', 'b', PAGE, 8 * PAGE, /does not begin at a page of 32768/],
  ['part of a host page', 'b', 0, PAGE, /no multiple of the page size 32768/],
  ['no page', 'a', 0, 0, /no multiple/],
  ['past the end of the block', 'a', 39 * PAGE, 2 * PAGE, /the block has 163840 bytes/],
  ['far past the end of the block', 'a', 2 ** 52, PAGE, /the block has 163840 bytes/],
];

for (const [name, block, start, length, says] of REFUSED) {
  test(`refused: ${name}`, () => {
    const { queue } = setUp();
    assert.throws(
      () => queue.add(block, start, length),
      (thrown) => {
        assert.ok(thrown instanceof FerryError && says.test(thrown.message), String(thrown));
        assert.deepEqual(thrown.fault, { code: 'MIGRATION_PAGE_REQUEST', block: block ?? '', start, length });
        return true;
      },
    );
    assert.equal(queue.length, 0);
  });
}

test('against a plain model: never twice in the queue, never a page that is not dirty, order kept', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('add' as const), page: fc.nat(39), count: fc.integer({ min: 1, max: 6 }) }),
    fc.record({ kind: fc.constant('next' as const) }),
    fc.record({ kind: fc.constant('send' as const), page: fc.nat(39) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { ram, queue } = setUp();
      const dirty = new Set(all(40));
      let model: number[] = [];
      const place = { block: 0, page: 0 };
      for (const one of steps) {
        if (one.kind === 'add') {
          const count = Math.min(one.count, 40 - one.page);
          const fresh = all(count)
            .map((i) => one.page + i)
            .filter((page) => dirty.has(page) && !model.includes(page));
          assert.equal(queue.add('a', one.page * PAGE, count * PAGE), fresh.length);
          model.push(...fresh);
        } else if (one.kind === 'send' && dirty.delete(one.page)) {
          ram.take(0, one.page);
        } else if (one.kind === 'next') {
          model = model.slice(model.findIndex((page) => dirty.has(page)));
          const wanted = model.find((page) => dirty.has(page));
          assert.equal(queue.next(place), wanted !== undefined);
          if (wanted === undefined) model = [];
          else assert.equal(place.page, wanted);
          model = model.filter((page) => page !== wanted);
        }
      }
    }),
  );
});

test('a storm of requests takes no more room than there are pages', () => {
  const { queue } = setUp();
  const place = { block: 0, page: 0 };
  for (let i = 0; i < 100_000; i++) {
    queue.add('a', (i % 40) * PAGE, PAGE);
    if (i % 3 === 0) queue.next(place);
    assert.ok(queue.length <= 40);
  }
});
