import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { CHUNK_HEADROOM, type Channel, isTransportError, type TransportFault } from '../../src/transport/index.ts';

/** Two joined ends. A file has its receiver only after the sender's end. */
export interface ChannelLink {
  readonly sender: Channel;
  receiver(): Promise<Channel>;
  /** Cuts the link without an orderly end, after the receiver is open. */
  readonly breakLink?: () => void;
  /** Frees what `open` made beside the channels. */
  readonly close?: () => Promise<void> | void;
}

export interface ChannelTraits {
  /** Both ends can send. */
  readonly duplex: boolean;
  /** The receiver exists while the sender sends, so that a slow reader holds the sender back. */
  readonly live: boolean;
  /** Bytes that may lie between a writer and a reader that does not read (kernel and ring buffers). */
  readonly bufferedBytesMax?: number;
}

const DEADLINE_MS = 20_000;
const MIB = 1024 * 1024;

/** The one suite that every transport passes. */
export function channelContract(name: string, traits: ChannelTraits, open: () => Promise<ChannelLink>): void {
  /** A command ends only when its other side does; a file must have ended before it is read. */
  const ended = async (sender: Channel) => {
    const done = sender.end();
    done.catch(() => {});
    if (!traits.live) await done;
    return { done };
  };
  const scenario = (what: string, body: (link: ChannelLink) => Promise<void>) =>
    test(`${name}: ${what}`, { timeout: DEADLINE_MS }, async () => {
      const link = await open();
      try {
        await body(link);
      } finally {
        link.sender.destroy();
        await link.sender.closed;
        await link.close?.();
      }
    });

  scenario('large data of uneven writes arrives whole and in order', async ({ sender, receiver }) => {
    const random = xorshift(0x5eed);
    const sent = createHash('sha256');
    let sentBytes = 0;
    const receiving = traits.live ? receiver().then((channel) => digest(channel)) : undefined;
    let underWay: Promise<void>[] = [];
    while (sentBytes < 24 * MIB) {
      const bytes = Buffer.alloc(1 + (random() % (random() % 4 === 0 ? MIB : 9000)));
      for (let i = 0; i + 4 <= bytes.length; i += 4) bytes.writeUInt32LE(random(), i);
      sent.update(bytes);
      sentBytes += bytes.length;
      underWay.push(sender.write(bytes));
      if (underWay.length === 5) {
        await Promise.all(underWay);
        underWay = [];
      }
    }
    await Promise.all(underWay);
    const ending = await ended(sender);
    const received = await (receiving ?? receiver().then((channel) => digest(channel)));
    await ending.done;
    assert.deepEqual(received, { bytes: sentBytes, hash: sent.digest('hex') });
  });

  scenario('a chunk stays untouched, scratch and all, until the next is asked for', async ({ sender, receiver }) => {
    const blocks = 24;
    const sending = (async () => {
      for (let i = 0; i < blocks; i++) await sender.write(Buffer.alloc(MIB, i));
      return ended(sender);
    })();
    if (!traits.live) await sending;
    const channel = await receiver();
    let bytes = 0;
    for (;;) {
      const chunk = channel.tryRead() ?? (await channel.read());
      if (chunk === null) break;
      assert.ok(chunk.start >= CHUNK_HEADROOM, 'headroom');
      assert.ok(chunk.end > chunk.start, 'no empty chunk');
      chunk.bytes.fill(0xee, chunk.start - CHUNK_HEADROOM, chunk.start);
      // Whatever arrives meanwhile must not go into this chunk.
      await new Promise((resolve) => setImmediate(resolve));
      for (let at = chunk.start; at < chunk.end; at += 1021)
        assert.equal(chunk.bytes[at], Math.floor((bytes + at - chunk.start) / MIB), `byte ${bytes + at - chunk.start}`);
      assert.equal(chunk.bytes[chunk.start - 1], 0xee);
      bytes += chunk.end - chunk.start;
    }
    assert.equal(bytes, blocks * MIB);
    channel.destroy();
    await channel.closed;
    await (await sending).done;
  });

  scenario('counts bytes and operations', async ({ sender, receiver }) => {
    for (let i = 0; i < 3; i++) await sender.write(Buffer.alloc(1000));
    const ending = await ended(sender);
    assert.equal(sender.counters.bytesWritten, 3000);
    assert.ok(sender.counters.writes >= 3);
    const channel = await receiver();
    assert.equal((await digest(channel)).bytes, 3000);
    await ending.done;
    assert.equal(channel.counters.bytesRead, 3000);
    assert.ok(channel.counters.reads >= 1);
  });

  scenario('after the orderly end every read says null', async ({ sender, receiver }) => {
    const ending = await ended(sender);
    const channel = await receiver();
    assert.equal(await channel.read(), null);
    assert.equal(await channel.read(), null);
    assert.equal(channel.tryRead(), null);
    channel.destroy();
    await channel.closed;
    await ending.done;
  });

  scenario('destroy may be repeated, closes, and makes every later call say so', async ({ sender, receiver }) => {
    const reason = new Error('the test wants it');
    const channel = traits.live ? await receiver() : undefined;
    sender.destroy(reason);
    sender.destroy(new Error('a second reason'));
    await sender.closed;
    await assert.rejects(sender.write(Buffer.alloc(1)), isClosedHere(sender, reason));
    await assert.rejects(sender.end(), isClosedHere(sender, reason));
    if (sender.readable) await assert.rejects(sender.read(), isClosedHere(sender, reason));
    channel?.destroy();
    await channel?.closed;
  });

  scenario('destroy ends waiting reads and writes', async ({ sender, receiver }) => {
    const reason = new Error('enough');
    if (traits.live) {
      const channel = await receiver();
      const reading = assert.rejects(channel.read(), isClosedHere(channel, reason));
      channel.destroy(reason);
      await reading;
      await channel.closed;
    }
    const writing = assert.rejects(sender.write(Buffer.alloc(64 * MIB)), (error) => isTransportError(error));
    sender.destroy(reason);
    await writing;
  });

  if (traits.live) liveScenarios(scenario, traits);
  if (traits.duplex) duplexScenarios(scenario);
}

type Scenario = (what: string, body: (link: ChannelLink) => Promise<void>) => void;

function liveScenarios(scenario: Scenario, traits: ChannelTraits): void {
  scenario('a reader that does not read holds the writer back', async ({ sender, receiver }) => {
    const bound = traits.bufferedBytesMax ?? 16 * MIB;
    const channel = await receiver();
    const total = bound + 8 * MIB;
    let taken = 0;
    let all = false;
    const writing = (async () => {
      for (; taken < total; taken += 256 * 1024) await sender.write(Buffer.alloc(256 * 1024));
      all = true;
      return { ending: sender.end() };
    })();
    await quiet(() => taken);
    assert.equal(all, false, 'the writer must wait');
    assert.ok(taken <= bound, `${taken} bytes taken without a reader`);
    assert.equal((await digest(channel)).bytes, total);
    await (await writing).ending;
  });

  scenario('a reader that waits is woken by the first bytes', async ({ sender, receiver }) => {
    const channel = await receiver();
    const reading = channel.read();
    await sender.write(Buffer.from('x'));
    const chunk = await reading;
    assert.equal(chunk?.bytes.toString('latin1', chunk.start, chunk.end), 'x');
    channel.destroy();
    await channel.closed;
  });

  scenario('a dead peer ends a writer with an error that says where', async ({ sender, receiver }) => {
    const channel = await receiver();
    await sender.write(Buffer.alloc(1000));
    await channel.read();
    channel.destroy();
    await channel.closed;
    await assert.rejects(
      async () => {
        for (;;) await sender.write(Buffer.alloc(MIB));
      },
      (error) =>
        isTransportError(error) &&
        (error.fault.code === 'TRANSPORT_RESET' || error.fault.code === 'TRANSPORT_EXEC') &&
        error.message.includes(sender.label),
    );
  });

  scenario('a broken link is no orderly end', async (link) => {
    if (link.breakLink === undefined) return;
    const channel = await link.receiver();
    await link.sender.write(Buffer.alloc(1000));
    const reading = assert.rejects(digest(channel), hasCode('TRANSPORT_RESET', 'TRANSPORT_EXEC'));
    link.breakLink();
    await reading;
    await channel.closed;
  });
}

function duplexScenarios(scenario: Scenario): void {
  scenario('one direction ends, the other goes on', async ({ sender, receiver }) => {
    const channel = await receiver();
    await sender.write(Buffer.from('question'));
    const ending = sender.end();
    assert.equal((await digest(channel, { keepOpen: true })).bytes, 8);
    const answering = channel.write(Buffer.alloc(3 * MIB, 7)).then(() => channel.end());
    assert.equal((await digest(sender, { keepOpen: true })).bytes, 3 * MIB);
    await Promise.all([ending, answering]);
    channel.destroy();
    await channel.closed;
  });
}

/** Reads to the end; then destroys the channel unless told otherwise. */
export async function digest(
  channel: Channel,
  options: { readonly keepOpen?: boolean } = {},
): Promise<{ bytes: number; hash: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for (;;) {
    let chunk = channel.tryRead();
    if (chunk === undefined) chunk = await channel.read();
    if (chunk === null) break;
    hash.update(chunk.bytes.subarray(chunk.start, chunk.end));
    bytes += chunk.end - chunk.start;
  }
  if (options.keepOpen !== true) {
    channel.destroy();
    await channel.closed;
  }
  return { bytes, hash: hash.digest('hex') };
}

export function hasCode(...codes: readonly TransportFault['code'][]): (thrown: unknown) => boolean {
  return (thrown) => isTransportError(thrown) && codes.includes(thrown.fault.code);
}

function isClosedHere(channel: Channel, reason: Error): (thrown: unknown) => boolean {
  return (thrown) =>
    isTransportError(thrown) &&
    thrown.fault.code === 'TRANSPORT_CLOSED' &&
    thrown.fault.channel === channel.label &&
    thrown.cause === reason;
}

/** Waits until `progress` has stood still for a while: the only sign there is that a writer is held back. */
async function quiet(progress: () => number): Promise<void> {
  for (let still = 0, last = -1; still < 10; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    still = progress() === last ? still + 1 : 0;
    last = progress();
  }
}

function xorshift(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
