import assert from 'node:assert/strict';
import test from 'node:test';
import { nowMs } from '../../src/base/index.ts';
import { type Channel, ChannelOutput } from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';
import { memoryPair } from '../support/memory-channel.ts';

const KIB = 1024;

/** Reads to the end, checking that byte n is n % 251. */
async function verify(channel: Channel): Promise<number> {
  let bytes = 0;
  for (let chunk = await channel.read(); chunk !== null; chunk = await channel.read()) {
    for (let at = chunk.start; at < chunk.end; at++, bytes++) {
      if (chunk.bytes[at] !== bytes % 251) assert.fail(`byte ${bytes} is ${chunk.bytes[at]}`);
    }
  }
  return bytes;
}

/** Stages `count` bytes of that pattern in pieces of `size`, as a hot loop does. */
async function stage(output: ChannelOutput, count: number, size: number): Promise<void> {
  for (let done = 0; done < count; done += size) {
    if (!output.room(size)) await output.flush();
    assert.ok(output.room(size));
    for (let i = 0; i < size; i++) output.buffer[output.pos + i] = (output.offset + i) % 251;
    output.pos += size;
  }
}

test('what is staged arrives in order, whatever the mix of pieces', async () => {
  const [a, b] = memoryPair();
  const output = new ChannelOutput(a, { bufferBytes: 100 * KIB, bufferCount: 3 });
  const reading = verify(b);
  await stage(output, 2_000_000, 4000);
  const body = Buffer.alloc(700_001);
  for (let i = 0; i < body.length; i++) body[i] = (output.offset + i) % 251;
  await output.put(body);
  await stage(output, 50_000, 10);
  assert.equal(output.offset, 2_750_001);
  await output.drained();
  assert.equal(a.counters.bytesWritten, 2_750_001);
  await a.end();
  assert.equal(await reading, 2_750_001);
});

test('flush waits only when every buffer is under way', async () => {
  const [a, b] = memoryPair();
  const output = new ChannelOutput(a, { bufferBytes: 300 * KIB, bufferCount: 3 });
  const fill = () => {
    output.pos = output.limit;
  };
  assert.equal(output.flush(), undefined, 'nothing staged');
  fill();
  assert.equal(output.flush(), undefined, 'a second buffer is free');
  fill();
  assert.equal(output.flush(), undefined, 'a third buffer is free');
  fill();
  const waiting = output.flush();
  assert.ok(waiting instanceof Promise);
  assert.equal(output.room(1), false, 'no place while waiting');
  for (let bytes = 0; bytes < 900 * KIB; ) {
    const chunk = await b.read();
    assert(chunk !== null);
    bytes += chunk.end - chunk.start;
  }
  await waiting;
  assert.equal(output.room(1), true);
});

test('a failure shows at the next flush and at drained, also while waiting', async () => {
  const [a, b] = memoryPair({ cutAfter: { aToB: 500 * KIB, how: 'reset' } });
  void drain(b);
  const output = new ChannelOutput(a, { bufferBytes: 200 * KIB, bufferCount: 2 });
  await assert.rejects(async () => {
    for (;;) await stage(output, 100 * KIB, KIB);
  }, hasCode('TRANSPORT_RESET'));
  await assert.rejects(output.drained(), hasCode('TRANSPORT_RESET'));
  await assert.rejects(output.put(Buffer.alloc(1000 * KIB)), hasCode('TRANSPORT_RESET'));

  const [c] = memoryPair();
  const blocked = new ChannelOutput(c, { bufferBytes: 600 * KIB, bufferCount: 2 });
  const waiting = assert.rejects(blocked.put(Buffer.alloc(5000 * KIB)), hasCode('TRANSPORT_CLOSED'));
  setImmediate(() => c.destroy(new Error('cancelled')));
  await waiting;
});

test('the event loop turns although the channel takes everything at once', async () => {
  const [a, b] = memoryPair();
  const output = new ChannelOutput(a);
  const reading = (async () => {
    while ((await b.read()) !== null);
  })();
  let turns = 0;
  const count = () => {
    turns++;
    immediate = setImmediate(count);
  };
  let immediate = setImmediate(count);
  for (let i = 0; i < 64; i++) await output.put(Buffer.alloc(1024 * KIB));
  clearImmediate(immediate);
  assert.ok(turns >= 10, `${turns} turns for 64 MiB`);
  await output.drained();
  await a.end();
  await reading;
});

test('the rate limit holds, smoothly, and may change while running', async () => {
  const [a, b] = memoryPair();
  const output = new ChannelOutput(a, { rateLimit: 4_000_000 });
  const arrivals: { readonly at: number; readonly bytes: number }[] = [];
  const reading = (async () => {
    let bytes = 0;
    for (let chunk = await b.read(); chunk !== null; chunk = await b.read()) {
      bytes += chunk.end - chunk.start;
      arrivals.push({ at: nowMs(), bytes });
    }
  })();
  const start = nowMs();
  await output.put(Buffer.alloc(1_600_000));
  await output.flush();
  const slowMs = nowMs() - start;
  assert.ok(slowMs >= 350, `1.6 MB at 4 MB/s in ${slowMs} ms`);
  // At no time more than the rate allows, one piece and a little burst aside.
  for (const { at, bytes } of arrivals) {
    assert.ok(bytes <= 4000 * (at - start) + 80_000 + 45_000, `${bytes} bytes after ${at - start} ms`);
  }
  output.rateLimit = 0;
  await output.put(Buffer.alloc(20_000_000));
  await output.drained();
  await a.end();
  await reading;
});

test('a wait for the rate is measured anew when it changes, and ends with the channel', async () => {
  const [a, b] = memoryPair();
  void drain(b);
  const output = new ChannelOutput(a, { rateLimit: 1 });
  const slow = output.put(Buffer.alloc(400_000));
  await new Promise((resolve) => setImmediate(resolve));
  output.rateLimit = 0;
  await slow;
  output.rateLimit = 1;
  const hopeless = assert.rejects(output.put(Buffer.alloc(4_000_000)), hasCode('TRANSPORT_CLOSED'));
  setImmediate(() => a.destroy());
  await hopeless;
});

async function drain(channel: Channel): Promise<void> {
  while ((await channel.read().catch(() => null)) !== null);
}
