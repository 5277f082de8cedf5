import assert from 'node:assert/strict';
import test from 'node:test';
import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { chunksOf, layoutOf, PAGE_WORDS } from '../../../src/machine/workload/layout.ts';
import { fillOwnPages, runOperations } from '../../../src/machine/workload/operations.ts';
import {
  flatPageOf,
  isFilled,
  keyOf,
  lastVersionAt,
  PATTERNS,
  type Pattern,
  type Program,
  pageAt,
  pick,
  placeOf,
  programOf,
  wordAt,
  writtenWord,
} from '../../../src/machine/workload/program.ts';
import { PageVerifier } from '../../../src/machine/workload/verify-pages.ts';
import { MIB } from './support.ts';

const key = fc.integer();
const version = fc.integer({ min: 1, max: 0x7fff_ffff });

function program(
  pattern: Pattern,
  options: { seed?: number; vcpu?: number; vcpus?: number; ram?: number } = {},
): Program {
  const { seed = 1, vcpu = 0, vcpus = 1, ram = MIB } = options;
  return programOf({ seed, pattern, fillPpm: 500_000 }, layoutOf(ram), vcpu, vcpus);
}

test('places: never the version counter, all visited before one comes again, and lastVersionAt inverts them', () => {
  fc.assert(
    fc.property(key, version, (key, n) => {
      const place = placeOf(key, n);
      assert.ok(place >= 1 && place < PAGE_WORDS, `place ${place}`);
      assert.equal(lastVersionAt(key, place, n), n);
      if (n > 1)
        assert.equal(
          lastVersionAt(key, place, n - 1) < 1 || placeOf(key, lastVersionAt(key, place, n - 1)) === place,
          true,
        );
    }),
    { seed: 1 },
  );
  const places = new Set(Array.from({ length: PAGE_WORDS - 1 }, (_, n) => placeOf(12345, n + 1)));
  assert.equal(places.size, PAGE_WORDS - 1);
});

test('the closed form of a page is what its operations leave behind, one by one', () => {
  fc.assert(
    fc.property(key, fc.boolean(), fc.integer({ min: 0, max: 2500 }), (key, filled, n) => {
      const page = new Int32Array(PAGE_WORDS);
      pageAt(key, filled, 0, page);
      for (let version = 1; version <= n; version++) {
        page[0] = version;
        page[placeOf(key, version)] = writtenWord(key, version);
      }
      const expected = new Int32Array(PAGE_WORDS);
      pageAt(key, filled, n, expected);
      assert.deepEqual(page, expected);
      for (let place = 1; place < PAGE_WORDS; place++) assert.equal(wordAt(key, filled, place, n), page[place]);
    }),
    { seed: 2, numRuns: 30 },
  );
});

test('vCPUs own disjoint pages, together all of ram and vram and none of rom', () => {
  const layout = layoutOf(MIB);
  const [ram, vram] = layout.blocks;
  for (const vcpus of [1, 2, 3, 7, 64]) {
    const seen = new Set<number>();
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const own = program('uniform', { vcpu, vcpus });
      for (let j = 0; j < own.ownedCount; j++) {
        const page = flatPageOf(own, j);
        assert.ok(!seen.has(page), `page ${page} has two owners`);
        assert.ok(page < ram.pageCount || (page >= vram.firstPage && page < vram.firstPage + vram.pageCount));
        seen.add(page);
      }
    }
    assert.equal(seen.size, ram.pageCount + vram.pageCount);
  }
});

/** How often each own page is picked in operations first .. first + count - 1. */
function picks(program: Program, first: number, count: number): number[] {
  const counts = new Array<number>(program.ownedCount).fill(0);
  for (let k = first; k < first + count; k++) {
    const j = pick(program, k);
    assert.ok(Number.isInteger(j) && j >= 0 && j < program.ownedCount, `pick ${j}`);
    counts[j]!++;
  }
  return counts;
}

test('uniform touches every page about equally often', () => {
  const owned = program('uniform').ownedCount;
  for (const first of [0, 2 ** 31 - 1000, 2 ** 40]) {
    const counts = picks(program('uniform'), first, owned * 200);
    assert.ok(
      Math.min(...counts) > 100 && Math.max(...counts) < 320,
      `${Math.min(...counts)} .. ${Math.max(...counts)}`,
    );
  }
});

test('hot-cold does nine tenths of its operations on a tenth of the pages, and reaches all others', () => {
  const hotCold = program('hot-cold');
  const counts = picks(hotCold, 0, 100_000);
  const hot = counts.slice(0, hotCold.hotCount).reduce((sum, count) => sum + count, 0);
  assert.ok(Math.abs(hot / 100_000 - 0.9) < 0.01, `${hot} of 100000`);
  assert.equal(hotCold.hotCount, Math.floor(hotCold.ownedCount / 10));
  assert.ok(Math.min(...counts) > 0);
});

test('sequential goes round in order, also far beyond 2^32 operations', () => {
  const sequential = program('sequential');
  const owned = sequential.ownedCount;
  for (const first of [0, 2 ** 32 - 5, 2 ** 52 + 12345]) {
    for (let k = first; k < first + owned + 10; k++)
      assert.equal(pick(sequential, k), Number(BigInt(k) % BigInt(owned)));
  }
});

test('other seeds and other vCPUs do other things', () => {
  const base = picks(program('uniform', { vcpus: 2 }), 0, 1000);
  assert.notDeepEqual(picks(program('uniform', { vcpus: 2, seed: 2 }), 0, 1000), base);
  assert.notDeepEqual(picks(program('uniform', { vcpus: 2, vcpu: 1 }), 0, 1000), base);
});

test('the initial content fills the given share of the pages, with bytes that do not compress', () => {
  const own = programOf({ seed: 5, pattern: 'uniform', fillPpm: 300_000 }, layoutOf(32 * MIB), 0, 1);
  const page = new Int32Array(PAGE_WORDS);
  const content: Buffer[] = [];
  let filled = 0;
  for (let j = 0; j < own.ownedCount; j++) {
    const key = keyOf(own.seed, flatPageOf(own, j));
    if (!isFilled(own, key)) continue;
    filled++;
    if (content.length >= 64) continue;
    pageAt(key, true, 0, page);
    content.push(Buffer.from(page.slice().buffer));
  }
  assert.ok(Math.abs(filled / own.ownedCount - 0.3) < 0.02, `${filled} of ${own.ownedCount}`);
  const bytes = Buffer.concat(content);
  assert.ok(deflateSync(bytes).length > bytes.length * 0.99);
});

test('the verifier agrees with the loop for every pattern and split of the work, and with no other number of operations', () => {
  const layout = layoutOf(MIB);
  for (const pattern of PATTERNS) {
    const chunks = chunksOf(
      layout,
      layout.blocks.map(({ usedLength }) => new SharedArrayBuffer(usedLength)),
    );
    const vcpus = [0, 1, 2].map((vcpu) => ({ own: program(pattern, { vcpu, vcpus: 3, seed: 9 }), done: 0, acc: 0 }));
    for (const { own } of vcpus) fillOwnPages(own, chunks);
    for (const turn of [1, 511, 20_000]) {
      for (const vcpu of vcpus) {
        vcpu.acc = runOperations(vcpu.own, chunks, undefined, vcpu.done, turn, vcpu.acc);
        vcpu.done += turn;
      }
      const verifier = new PageVerifier(layout, chunks);
      for (const { own, done, acc } of vcpus) verifier.vcpu(own, done, acc);
      verifier.rom(vcpus[0]!.own);
      const pagesChecked = (MIB + MIB + MIB / 4) / 4096;
      assert.deepEqual(verifier.verdict, { pagesChecked, pagesBad: 0, bad: [], registersBad: [] }, pattern);
    }
    const { own, done, acc } = vcpus[0]!;
    const wrong = new PageVerifier(layout, chunks);
    wrong.vcpu(own, done + 1, acc);
    assert.equal(wrong.verdict.pagesBad, 1);
    assert.deepEqual(
      wrong.verdict.registersBad.map(({ vcpu, operations }) => [vcpu, operations]),
      [[0, done + 1]],
    );
  }
});
