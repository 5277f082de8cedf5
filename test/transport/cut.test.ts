/** The tools that cut links do what they say: other rooms' tests stand on them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type Address, type Channel, connect, listen } from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';
import { type CutPlan, cutProxy } from '../support/cut-proxy.ts';
import { memoryPair } from '../support/memory-channel.ts';

const CUTS = [0, 1, 4095, 65_536, 1_000_003];

/** Sends without end from one to the other; how many bytes arrive, and how it ends. An orderly cut proxy still swallows what is sent. */
async function transfer(
  from: Channel,
  to: Channel,
  link: 'memory' | 'proxy',
): Promise<{ bytes: number; end: unknown; writerEnd: unknown }> {
  const writing = (async () => {
    for (;;) await from.write(Buffer.alloc(10_007, 3));
  })().catch((error: unknown) => error);
  let bytes = 0;
  let end: unknown;
  try {
    for (let chunk = await to.read(); chunk !== null; chunk = await to.read()) bytes += chunk.end - chunk.start;
  } catch (error) {
    end = error;
  }
  to.destroy();
  if (link === 'proxy') from.destroy();
  const writerEnd = await writing;
  from.destroy();
  return { bytes, end, writerEnd };
}

for (const how of ['end', 'reset'] as const) {
  for (const after of CUTS) {
    test(`memory pair: ${how} after ${after} bytes`, async () => {
      for (const forward of [true, false]) {
        const [a, b] = memoryPair({ cutAfter: { how, ...(forward ? { aToB: after } : { bToA: after }) } });
        const { bytes, end, writerEnd } = await (forward ? transfer(a, b, 'memory') : transfer(b, a, 'memory'));
        assert.equal(bytes, after);
        assert.equal(end === undefined, how === 'end');
        assert.ok(end === undefined || hasCode('TRANSPORT_RESET')(end));
        assert.ok(hasCode('TRANSPORT_RESET')(writerEnd));
      }
    });

    test(`proxy: ${how} after ${after} bytes`, async () => {
      for (const direction of ['toTarget', 'toClient'] as const) {
        const { bytes, end, passed } = await throughProxy({ direction, after, how });
        assert.equal(passed, after);
        // A reset may overtake bytes that were under way.
        if (how === 'end') assert.equal(bytes, after);
        else assert.ok(bytes <= after);
        assert.equal(end === undefined, how === 'end');
        assert.ok(end === undefined || hasCode('TRANSPORT_RESET')(end));
      }
    });
  }
}

test('proxy: a black hole passes its bytes and then is silent', async () => {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const proxy = await cutProxy(listener.address as Address & { kind: 'tcp' }, {
    direction: 'toTarget',
    after: 100,
    how: 'blackhole',
  });
  const [client, server] = await Promise.all([connect(proxy.address), listener.accept()]);
  await client.write(Buffer.alloc(200));
  await proxy.cut;
  let bytes = 0;
  while (bytes < 100) {
    const chunk = await server.read();
    assert(chunk !== null);
    bytes += chunk.end - chunk.start;
  }
  assert.equal(bytes, 100);
  const silent = await Promise.race([
    server.read().catch(() => 'closed'),
    new Promise((resolve) => setTimeout(resolve, 100, 'silent')),
  ]);
  assert.equal(silent, 'silent');
  client.destroy();
  server.destroy();
  listener.close();
  await proxy.close();
});

async function throughProxy(plan: CutPlan) {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const proxy = await cutProxy(listener.address as Address & { kind: 'tcp' }, plan);
  const [client, server] = await Promise.all([connect(proxy.address), listener.accept()]);
  const result = await (plan.direction === 'toTarget'
    ? transfer(client, server, 'proxy')
    : transfer(server, client, 'proxy'));
  listener.close();
  await proxy.close();
  return { ...result, passed: proxy.passed[plan.direction] };
}
