/** Channels of real QEMUs through our threads: the memory that results is what the real destination had; none, zlib, zstd; both disciplines. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { CAPTURED_BLOCK, multifdCaptures } from '../support/multifd-captures.ts';
import { replay } from './replay.ts';
import { bytesOf } from './support.ts';

for (const capture of multifdCaptures()) {
  test(`${capture.name} arrives`, async (t) => {
    const { ram, points, totals } = await replay(t, capture);
    assert.equal(
      totals.bytes,
      capture.channels.reduce((sum, channel) => sum + channel.length, 0),
    );
    assert.ok(totals.packets >= points * capture.channels.length);
    const block = ram.blocks.findIndex(({ idstr }) => idstr === CAPTURED_BLOCK);
    assert.equal(createHash('sha256').update(bytesOf(ram, block)).digest('hex'), capture.memory);
  });
}
