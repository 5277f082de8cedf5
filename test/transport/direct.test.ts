/** Transfers without a copy: same bytes, same ends. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { addressOf, canVector, IoVector } from '../../src/native/index.ts';
import { type Address, type Channel, connect, listen } from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';
import { cutProxy } from '../support/cut-proxy.ts';

const skip = canVector() ? false : 'no vectored I/O here';

async function linked() {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const proxy = await cutProxy(listener.address as Address & { kind: 'tcp' });
  const [sender, receiver] = await Promise.all([connect(proxy.address), listener.accept()]);
  const close = async () => {
    sender.destroy();
    receiver.destroy();
    listener.close();
    await proxy.close();
  };
  return { sender, receiver, proxy, close };
}

/** Takes what is there directly, over and over, until the channel has an end to tell; how many bytes came, either way. */
async function receiveAll(channel: Channel, memory: Buffer): Promise<number> {
  const vector = new IoVector(1);
  for (let bytes = 0; ; ) {
    let chunk = channel.tryRead();
    if (chunk === undefined) {
      vector.clear();
      vector.push(addressOf(memory), memory.length);
      const count = channel.direct?.receive(vector) ?? 0;
      bytes += count;
      if (count > 0) continue;
      chunk = await channel.read();
    }
    if (chunk === null) return bytes;
    bytes += chunk.end - chunk.start;
  }
}

for (const how of ['end', 'reset'] as const) {
  test(`received directly, a link that ends by ${how} is told so`, { skip }, async () => {
    for (let round = 0; round < 10; round++) {
      const { sender, receiver, proxy, close } = await linked();
      const memory = Buffer.from(new ArrayBuffer(64 * 1024));
      const receiving = receiveAll(receiver, memory);
      const sent = 100_000 * round + 1;
      await sender.write(Buffer.alloc(sent));
      while (proxy.passed.toTarget < sent) await new Promise((resolve) => setImmediate(resolve));
      proxy.sever(how);
      if (how === 'reset') await assert.rejects(receiving, hasCode('TRANSPORT_RESET'));
      else assert.equal(await receiving, sent);
      assert.ok(receiver.counters.bytesRead <= sent);
      await close();
    }
  });
}
