/** Channels of real QEMUs through our threads: the memory that results is what the real destination had; none, zlib, zstd; both disciplines. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import type { PageCompression, ReceiveChannels, SharedRam } from '../../src/dataplane/index.ts';
import { CAPTURED_BLOCK, multifdCaptures, packetsOf, replayMain } from '../support/multifd-captures.ts';
import { bytesOf, pairs, receiverBehindInitial } from './support.ts';

/** Writes to a socket that nobody may read yet: from a thread. */
function play(fd: number, bytes: Buffer): Promise<void> {
  const code = `
    const { closeSync, writeSync } = require('node:fs');
    const { workerData: { fd, bytes } } = require('node:worker_threads');
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    closeSync(fd);`;
  const thread = new Worker(code, { eval: true, workerData: { fd, bytes }, trackUnmanagedFds: false });
  return new Promise((resolve, reject) => thread.once('exit', () => resolve()).once('error', reject));
}

for (const capture of multifdCaptures()) {
  test(`${capture.name} arrives`, async (t) => {
    const links = pairs(capture.channels.length);
    const played = capture.channels.map((bytes, channel) => play(links[channel]![0], packetsOf(bytes)));
    const state: { channels?: ReceiveChannels; ram?: SharedRam } = {};
    let opening: Promise<ReceiveChannels> | undefined;
    const { points } = await replayMain(
      capture.main,
      (list) => {
        const blocks = list.map(({ idstr, usedLength }) => ({
          idstr,
          usedLength,
          memory: new SharedArrayBuffer(usedLength),
          byteOffset: 0,
        }));
        const ram = { pageSize: 4096, blocks };
        state.ram = ram;
        const compression = capture.method as PageCompression;
        opening = receiverBehindInitial(
          t,
          links.map(([, fd]) => fd),
          ram,
          { compression },
        );
        return {
          page: (block, offset, from, at) => void from.copy(bytesOf(ram, block), offset, at, at + 4096),
          zero: (block, offset) => void bytesOf(ram, block).fill(0, offset, offset + 4096),
          read() {},
        };
      },
      async () => {
        state.channels = await opening!;
        await state.channels.meet();
      },
    );
    await state.channels!.finish();
    state.channels!.close();
    await Promise.all(played);
    const { bytes, packets } = state.channels!.totals;
    assert.equal(
      bytes,
      capture.channels.reduce((sum, channel) => sum + channel.length, 0),
    );
    assert.ok(packets >= points * capture.channels.length);
    const block = state.ram!.blocks.findIndex(({ idstr }) => idstr === CAPTURED_BLOCK);
    assert.equal(createHash('sha256').update(bytesOf(state.ram!, block)).digest('hex'), capture.memory);
  });
}
