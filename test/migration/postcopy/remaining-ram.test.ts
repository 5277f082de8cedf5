import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { discardCommands } from '../../../src/migration/postcopy/source/discards.ts';
import { RemainingRam } from '../../../src/migration/postcopy/source/remaining-ram.ts';
import { type Command, DISCARD_RANGES_PER_COMMAND } from '../../../src/wire/index.ts';
import { type ArbitraryRam, arbitraryRam, bitmapOf, blockOf, PAGE, pagesOf } from './ram.ts';

function ramOf({ blocks, dirty }: ArbitraryRam): RemainingRam {
  const maps = blocks.map(({ usedLength }, i) => bitmapOf(usedLength / PAGE, dirty[i]!));
  return new RemainingRam(blocks, maps, PAGE);
}

/** Host pages of which any part is dirty, as target pages: said plainly. */
function widened({ blocks, dirty }: ArbitraryRam): Set<number>[] {
  return blocks.map(({ pageSize }, i) => {
    const hostPages = pageSize / PAGE;
    const hosts = new Set([...dirty[i]!].map((page) => Math.floor(page / hostPages)));
    return new Set([...hosts].flatMap((host) => Array.from({ length: hostPages }, (_, k) => host * hostPages + k)));
  });
}

type Discard = Command & { name: 'POSTCOPY_RAM_DISCARD' };

test('discards: ranges are whole host pages, maximal, in order, twelve a command, and say exactly what is dirty', () => {
  fc.assert(
    fc.property(arbitraryRam, (given) => {
      const ram = ramOf(given);
      const wanted = widened(given);
      assert.equal(
        ram.pages,
        wanted.reduce((sum, pages) => sum + pages.size, 0),
      );
      for (const [index, block] of ram.blocks.entries()) {
        const commands = [...discardCommands(block, PAGE)] as Discard[];
        for (const [place, { name, block: idstr, ranges }] of commands.entries()) {
          assert.deepEqual([name, idstr], ['POSTCOPY_RAM_DISCARD', block.idstr]);
          const last = place === commands.length - 1;
          assert.ok(last ? ranges.length >= 1 && ranges.length <= 12 : ranges.length === DISCARD_RANGES_PER_COMMAND);
        }
        const ranges = commands.flatMap((command) => command.ranges);
        let end = -1;
        const pages: number[] = [];
        for (const { start, length } of ranges) {
          assert.ok(length > 0 && start % (block.hostPages * PAGE) === 0 && length % (block.hostPages * PAGE) === 0);
          assert.ok(start > end, 'in order, with a gap in between');
          end = start + length;
          for (let at = start; at < end; at += PAGE) pages.push(at / PAGE);
        }
        assert.deepEqual(
          pages,
          [...wanted[index]!].sort((a, b) => a - b),
        );
      }
    }),
  );
});

test('every page is found once, from anywhere', () => {
  fc.assert(
    fc.property(arbitraryRam, fc.nat(), fc.nat(), (given, startBlock, startPage) => {
      const ram = ramOf(given);
      const wanted = widened(given);
      const block = startBlock % ram.blocks.length;
      const place = { block, page: startPage % ram.blocks[block]!.pageCount };
      const sent = given.blocks.map(() => new Set<number>());
      let before = ram.pages;
      while (ram.seek(place)) {
        const { hostPages } = ram.blocks[place.block]!;
        const first = ram.take(place.block, place.page);
        assert.equal(first % hostPages, 0);
        for (let page = first; page < first + hostPages; page++) {
          assert.ok(!sent[place.block]!.has(page), 'sent twice');
          assert.ok(!ram.isDirty(place.block, page));
          sent[place.block]!.add(page);
        }
        assert.equal(ram.pages, before - hostPages);
        before = ram.pages;
      }
      assert.equal(ram.pages, 0);
      assert.deepEqual(sent.map(sorted), wanted.map(sorted));
    }),
  );
});

test('after a recovery everything that was not received is to be sent', () => {
  fc.assert(
    fc.property(arbitraryRam, (given) => {
      const ram = ramOf({ ...given, dirty: given.dirty.map(() => new Set<number>()) });
      assert.equal(ram.pages, 0);
      // Received: what is not in `dirty`; bits past the end of a block are noise.
      const received = given.blocks.map(({ usedLength }, i) => {
        const map = bitmapOf(usedLength / PAGE, given.dirty[i]!);
        for (let word = 0; word < map.length; word++) map[word] = ~map[word]!;
        return map;
      });
      ram.replace(received);
      assert.deepEqual(
        ram.blocks.map(({ dirty, pageCount }) => pagesOf(dirty, pageCount)),
        widened(given).map(sorted),
      );
      assert.equal(
        ram.pages,
        widened(given).reduce((sum, pages) => sum + pages.size, 0),
      );
    }),
  );
});

test('nothing dirty: no place, no discards', () => {
  const ram = new RemainingRam([blockOf('a', 4), blockOf('b', 1)], [bitmapOf(4, []), bitmapOf(1, [])], PAGE);
  assert.equal(ram.seek({ block: 1, page: 0 }), false);
  assert.deepEqual([...discardCommands(ram.blocks[0]!, PAGE)], []);
});

function sorted(pages: ReadonlySet<number>): number[] {
  return [...pages].sort((a, b) => a - b);
}
