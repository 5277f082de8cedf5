/**
 * The discipline: a page of round 2 never loses to its copy of round 1, even when the channel that carries round 1 is late. The same rounds over
 * the same links in the same order, but with the SYNC between them left out, do lose it: this test can fail.
 */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { peek } from '../../src/native/index.ts';
import { HeldLink, until } from './held-link.ts';
import { addAll, bytesOf, HEADER, PAGE, ramOf, receiverBehindInitial, sameRam, sender, writePage } from './support.ts';

const BATCH = HEADER + 128 * PAGE;

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

/**
 * Round 1 sends pages 0..127 on channel 0 and 128..255 on channel 1, round 2 the other way round: a batch is more than a socket takes, so a
 * channel keeps its batch until the link takes it, and the next batch goes to the other. All of channel 1 is passed on before channel 0.
 */
async function twoRounds(t: TestContext, disciplined: boolean) {
  const links = [new HeldLink(t), new HeldLink(t)] as const;
  const [late, early] = links;
  const from = ramOf(256);
  const to = ramOf(256);
  const source = await sender(
    t,
    links.map((link) => link.source),
    from,
    { findZeroPages: false },
  );
  for (const link of links) {
    await link.take(64);
    link.forget();
  }
  const destination = await receiverBehindInitial(
    t,
    links.map((link) => link.destination),
    to,
  );

  for (const page of range(0, 256)) writePage(from, 0, page, 1);
  await addAll(source, 0, range(0, 256));
  await until(() => peek(late.from, HEADER + PAGE)?.length === HEADER + PAGE, 'page 0 of round 1');
  if (disciplined) {
    const synced = source.sync();
    for (const link of links) await link.take(BATCH + HEADER);
    await synced;
  }
  for (const page of range(0, 256)) writePage(from, 0, page, 2);
  await addAll(source, 0, [...range(128, 128), ...range(0, 128)]);
  const synced = source.sync();
  for (const link of links) await link.take(disciplined ? BATCH + HEADER : 2 * BATCH + HEADER);
  await synced;

  const points = disciplined ? 2 : 1;
  const all = 2 * BATCH + points * HEADER;
  const met = (async () => {
    for (let point = 0; point < points; point++) await destination.meet();
  })();
  const passed = early.pass(all);
  if (disciplined) {
    // The receiver parks at the first SYNC; what follows waits in the socket, as far as it takes it.
    await until(() => early.passed > BATCH + HEADER + PAGE, 'more of channel 1 than its round 1');
    await until(() => destination.totals.packets === 2, 'SYNC of round 1 on channel 1');
  } else {
    await passed;
    await until(() => destination.totals.packets === 3, 'SYNC of channel 1');
  }
  const before = Buffer.from(bytesOf(to, 0));
  await late.pass(all);
  await Promise.all([passed, met]);
  return { from, to, before };
}

const version = (bytes: Buffer, page: number) => Math.round((bytes.readInt32LE(page * PAGE) - page) / 4096);

test('a late channel does not bring back the past', async (t) => {
  const { from, to, before } = await twoRounds(t, true);
  assert.deepEqual([version(before, 0), version(before, 128)], [0, 1], 'round 2 waits for all of round 1');
  assert.ok(sameRam(from, to));
});

test('without SYNC between the rounds it does', async (t) => {
  const { from, to, before } = await twoRounds(t, false);
  assert.equal(version(before, 0), 2, 'round 2 had arrived');
  assert.equal(version(bytesOf(to, 0), 0), 1, 'and was overwritten');
  assert.ok(!sameRam(from, to));
});
