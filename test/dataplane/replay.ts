/** A captured multifd migration through our receiving threads: the memory, by the blocks of its stream. */
import type { TestContext } from 'node:test';
import type { ChannelTotals, PageCompression, ReceiveChannels } from '../../src/dataplane/index.ts';
import type { MemoryRam } from '../../src/machine/index.ts';
import { type MultifdCapture, packetsOf, replayMain } from '../support/multifd-captures.ts';
import { bytesOf, PAGE, pairs, receiverBehindInitial, writeFromThread } from './support.ts';

export interface Replayed {
  readonly ram: MemoryRam;
  /** Points of the main stream where the channels met. */
  readonly points: number;
  readonly totals: ChannelTotals;
}

export async function replay(t: TestContext, capture: MultifdCapture): Promise<Replayed> {
  const links = pairs(capture.channels.length);
  const played = capture.channels.map((bytes, channel) =>
    writeFromThread(links[channel]![0], packetsOf(bytes), 'and close'),
  );
  let ram: MemoryRam | undefined;
  let opening: Promise<ReceiveChannels> | undefined;
  const { points } = await replayMain(
    capture.main,
    (list) => {
      const made: MemoryRam = {
        kind: 'memory',
        isZero: true,
        pageSize: PAGE,
        blocks: list.map(({ idstr, usedLength }) => {
          return { idstr, usedLength, memory: new SharedArrayBuffer(usedLength), byteOffset: 0 };
        }),
      };
      const fds = links.map(([, fd]) => fd);
      opening = receiverBehindInitial(t, fds, made, { compression: capture.method as PageCompression });
      ram = made;
      return {
        page: (block, offset, from, at) => void from.copy(bytesOf(made, block), offset, at, at + PAGE),
        zero: (block, offset) => void bytesOf(made, block).fill(0, offset, offset + PAGE),
        read() {},
      };
    },
    async () => (await opening!).meet(),
  );
  const channels = await opening!;
  await channels.finish();
  channels.close();
  await Promise.all(played);
  return { ram: ram!, points, totals: channels.totals };
}
