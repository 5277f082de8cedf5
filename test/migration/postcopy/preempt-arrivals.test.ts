/** Several preempt channels come to a destination: in any order, with strangers among them, and wrongly announced ones. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { explain } from '../../../src/base/index.ts';
import { acceptPreempt } from '../../../src/migration/postcopy/destination/preempt-arrivals.ts';
import { Settings } from '../../../src/settings/index.ts';
import { type Channel, connect, type Listener, listen } from '../../../src/transport/index.ts';
import { encodePreemptInitial } from '../../../src/wire/index.ts';

async function door(t: TestContext): Promise<{ listener: Listener; comes(bytes: Uint8Array): Promise<Channel> }> {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const peers: Channel[] = [];
  t.after(() => {
    listener.close();
    for (const peer of peers) peer.destroy();
  });
  return {
    listener,
    comes: async (bytes) => {
      const peer = await connect(listener.address);
      peers.push(peer);
      if (bytes.length > 0) await peer.write(bytes);
      return peer;
    },
  };
}

const never = () => new AbortController().signal;
const announced = (id: number, count: number, more = '') =>
  Buffer.concat([encodePreemptInitial(id, count), Buffer.from(more)]);

/** All that comes up to the end, in one piece. */
async function said(channel: Channel): Promise<string> {
  let text = '';
  for (let chunk = await channel.read(); chunk !== null; chunk = await channel.read())
    text += chunk.bytes.toString('latin1', chunk.start, chunk.end);
  return text;
}

test('by id, whoever comes first; strangers are turned away, and the first bytes are still to be read', async (t) => {
  const { listener, comes } = await door(t);
  const arrival = acceptPreempt(listener, 3, new Settings(), never());
  const strangers = [await comes(Buffer.from('GET / HTTP/1.1')), await comes(Buffer.from('5145564d00000003', 'hex'))];
  const silent = await comes(Buffer.alloc(0));
  const peers = new Map<number, Channel>();
  for (const id of [2, 0, 1]) peers.set(id, await comes(announced(id, 3, `pages of ${id}`)));
  const channels = await arrival;
  t.after(() => {
    for (const channel of channels) channel.destroy();
  });
  for (const [id, channel] of channels.entries()) {
    assert.match(channel.label, new RegExp(`^preempt ${id} `));
    await peers.get(id)!.end();
    assert.equal((await said(channel)).slice(8), `pages of ${id}`);
  }
  for (const stranger of [...strangers, silent]) assert.equal(await said(stranger).catch(() => ''), '');
});

test('a single one is whoever comes, and says nothing of itself', async (t) => {
  const { listener, comes } = await door(t);
  const arrival = acceptPreempt(listener, 1, new Settings(), never());
  const peer = await comes(Buffer.from('anything'));
  const [channel, ...others] = await arrival;
  assert.deepEqual(others, []);
  await peer.end();
  assert.equal(await said(channel!), 'anything');
});

for (const [name, second, says] of [
  ['of another number of channels', announced(1, 4), /channels: expected 3, found 4/],
  ['of an id that is taken', announced(0, 3), /preempt 0 does not match: one channel of that id expected/],
  ['of a later version', Buffer.from('564d465000020103', 'hex'), /version: expected 1, found 2/],
] as const) {
  test(`one ${name}: all are given up, and it is named`, async (t) => {
    const { listener, comes } = await door(t);
    const arrival = acceptPreempt(listener, 3, new Settings(), never());
    arrival.catch(() => {});
    const first = await comes(announced(0, 3));
    // It has been taken before the second one comes.
    await new Promise((resolve) => setImmediate(resolve));
    const other = await comes(second);
    await assert.rejects(arrival, (error) => says.test(explain(error)));
    for (const peer of [first, other]) assert.equal(await said(peer).catch(() => ''), '');
  });
}

test('the listener is closed: whoever has come is let go', async (t) => {
  const { listener, comes } = await door(t);
  const arrival = acceptPreempt(listener, 2, new Settings(), never());
  arrival.catch(() => {});
  const peer = await comes(announced(1, 2));
  listener.close();
  await assert.rejects(arrival);
  assert.equal(await said(peer).catch(() => ''), '');
});
