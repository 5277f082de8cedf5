import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError } from '../../../src/base/index.ts';
import { PageRequests } from '../../../src/migration/postcopy/destination/page-requests.ts';
import { ReceivedPages } from '../../../src/migration/postcopy/destination/received-pages.ts';
import { discardCommands } from '../../../src/migration/postcopy/source/discards.ts';
import { RemainingRam } from '../../../src/migration/postcopy/source/remaining-ram.ts';
import { bitmapFromWire, type ReturnPathMessage } from '../../../src/wire/index.ts';
import { arbitraryRam, bitmapOf, blockOf, PAGE, pagesOf } from './ram.ts';

test('discards of a source and bitmaps of a destination mean the same pages, to and fro', () => {
  fc.assert(
    fc.property(arbitraryRam, fc.array(fc.nat(), { maxLength: 40 }), ({ blocks, dirty }, placements) => {
      const maps = blocks.map(({ usedLength }, i) => bitmapOf(usedLength / PAGE, dirty[i]!));
      const ram = new RemainingRam(blocks, maps, PAGE);
      const received = new ReceivedPages(blocks, PAGE);
      assert.equal(received.missing, 0);
      for (const block of ram.blocks) {
        for (const command of discardCommands(block, PAGE)) {
          assert(command.name === 'POSTCOPY_RAM_DISCARD');
          for (const { start, length } of command.ranges) received.discard(command.block, start, length);
        }
      }
      assert.equal(received.missing, ram.pages);
      // Some pages are sent and arrive, then the connection dies: the bitmaps bring the source up to date.
      const place = { block: 0, page: 0 };
      for (const _ of placements) {
        if (!ram.seek(place)) break;
        received.place(place.block, ram.take(place.block, place.page));
      }
      const lost = { block: 0, page: 0 };
      if (ram.seek(lost)) ram.take(lost.block, lost.page);
      ram.replace(blocks.map(({ usedLength }, i) => bitmapFromWire(received.toWire(i), usedLength / PAGE)));
      assert.equal(ram.pages, received.missing);
      for (const [index, { pageCount }] of received.blocks.entries()) {
        const there = pagesOf(received.blocks[index]!.received, pageCount);
        const left = pagesOf(ram.blocks[index]!.dirty, pageCount);
        assert.equal(there.length + left.length, pageCount);
        assert.ok(left.every((page) => !received.has(index, page)));
        assert.equal(received.nextMissing(index, 0), left[0] ?? -1);
      }
    }),
  );
});

test('the bitmap on the wire: little endian, whole 64-bit words, whole host pages only', () => {
  const received = new ReceivedPages([blockOf('a', 8192), blockOf('b', 1), blockOf('c', 64, 8)], PAGE);
  assert.equal(received.toWire(0).length, 1024);
  assert.equal(received.toWire(1).toString('hex'), '0100000000000000');
  received.discard('c', 0, 64 * PAGE);
  received.place(2, 8);
  assert.equal(received.toWire(2).toString('hex'), '00ff000000000000');
});

const REFUSED: readonly [string, string, number, number, RegExp][] = [
  ['an unknown block', 'x', 0, PAGE, /no such block/],
  ['inside a page', 'a', 100, PAGE, /pages of the block have 4096 bytes/],
  ['part of a page', 'a', 0, 100, /pages of the block have 4096 bytes/],
  ['part of a host page', 'b', 0, 4 * PAGE, /pages of the block have 32768 bytes/],
  ['past the end', 'a', 3 * PAGE, 2 * PAGE, /the block has 16384 bytes/],
];

for (const [name, block, start, length, says] of REFUSED) {
  test(`a discard is refused: ${name}`, () => {
    const received = new ReceivedPages([blockOf('a', 4), blockOf('b', 16, 8)], PAGE);
    assert.throws(
      () => received.discard(block, start, length),
      (thrown) => {
        assert.ok(thrown instanceof FerryError && says.test(thrown.message), String(thrown));
        assert.deepEqual(thrown.fault, { code: 'MIGRATION_DISCARD', block, start, length });
        return true;
      },
    );
    assert.equal(received.missing, 0);
  });
}

function requesting() {
  const received = new ReceivedPages([blockOf('a', 40), blockOf('b', 32, 8)], PAGE);
  received.discard('a', 0, 40 * PAGE);
  received.discard('b', 0, 32 * PAGE);
  const sent: string[] = [];
  const requests = new PageRequests(received, PAGE, (message: ReturnPathMessage) => {
    assert(message.type === 'REQ_PAGES' || message.type === 'REQ_PAGES_ID');
    const pages = `${message.start / PAGE}+${message.length / PAGE}`;
    sent.push(message.type === 'REQ_PAGES_ID' ? `${message.block} ${pages}` : pages);
  });
  const place = (block: number, page: number) => {
    received.place(block, page);
    requests.placed(block, page);
  };
  return { requests, sent, place };
}

test('a page is asked for once, whoever wants it, as the host page it is; the block is named when it changes', () => {
  const { requests, sent, place } = requesting();
  requests.want(0, 3);
  assert.deepEqual(sent, [], 'not before the path is open');
  requests.open();
  requests.want(0, 3);
  requests.want(0, 5);
  requests.want(1, 9);
  requests.want(1, 15);
  requests.want(1, 16);
  requests.want(0, 6);
  assert.deepEqual(sent, ['a 3+1', '5+1', 'b 8+8', '16+8', 'a 6+1']);
  place(0, 3);
  place(0, 7);
  requests.want(0, 3);
  requests.want(0, 7);
  assert.equal(requests.outstanding, 4);
  assert.equal(requests.total, 5);
});

test('on a new connection what is outstanding is asked for again, in order, first by name', () => {
  const { requests, sent, place } = requesting();
  requests.open();
  for (const page of [3, 5, 9]) requests.want(0, page);
  place(0, 5);
  requests.close();
  requests.want(1, 0);
  sent.length = 0;
  requests.open();
  assert.deepEqual(sent, ['a 3+1', '9+1', 'b 0+8']);
  assert.equal(requests.total, 6);
});
