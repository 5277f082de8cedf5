/**
 * Hostile clients for a living server: the client's side of captured conversations, damaged, in pieces, often broken off. Whatever one says, the server
 * lets it go in the end, its device is in a state that is one, and the next client is served.
 *
 *   node .build/.../test/fuzz/vfio-user-server.fuzz.js [seed] [iterations]
 */
import assert from 'node:assert/strict';
import { DEVICE_STATES } from '../../src/vfio/index.ts';
import { vfioUser } from '../../src/wire/index.ts';
import { CONVERSATIONS, conversation } from '../support/vfio-user-captures.ts';
import { RamDevice } from '../vfio/user/ram-device.ts';
import { RawEnd, type TestServer, withServer } from '../vfio/user/support.ts';
import { damage, generator } from './damage.ts';

/** Until a client that has said all is let go, ms. */
const ROUND_MS = 20_000;

/** Commands only: a reply that nobody waits for ends a conversation at once. */
const SUBJECTS: readonly (readonly Buffer[])[] = CONVERSATIONS.map((name) =>
  conversation(name)
    .filter(({ from, bytes }) => from === 'client' && (bytes[8]! & 0x0f) === 0)
    .map(({ bytes }) => bytes),
);

async function fuzzOnce(server: TestServer, device: RamDevice, random: (below: number) => number): Promise<void> {
  const commands = SUBJECTS[random(SUBJECTS.length)]!;
  const from = 1 + random(commands.length - 1);
  const some = Buffer.concat(commands.slice(from, from + 1 + random(30)));
  // Most get past the greeting: behind it there is more to be broken.
  const bytes = random(8) === 0 ? damage(Buffer.concat([commands[0]!, some]), random) : damage(some, random);
  const raw = await RawEnd.connect(server.socket);
  raw.send(commands[0]!);
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random(random(2) === 0 ? 50 : 5000);
    raw.send(bytes.subarray(at, at + length));
    at += length;
  }
  const gone = server.events.filter(({ kind }) => kind === 'gone').length;
  if (random(4) === 0) raw.close();
  else raw.socket.end();
  await served(server, device, gone);
  raw.close();
}

/** The next client is answered, once the one before it has been let go. */
async function served(server: TestServer, device: RamDevice, gone: number): Promise<void> {
  const next = await RawEnd.connect(server.socket);
  const timer = setTimeout(() => next.close(), ROUND_MS);
  try {
    assert.equal(typeof (await next.greet()), 'object');
    assert.deepEqual(await next.ask('DEVICE_RESET', {}), {});
    const info = await next.ask('DEVICE_GET_INFO', { argsz: 16 });
    assert.ok(typeof info === 'object' && info.regions === vfioUser.PCI_REGION_COUNT);
    assert.ok(server.events.filter(({ kind }) => kind === 'gone').length > gone);
    assert.ok(DEVICE_STATES.includes(await device.state()));
  } finally {
    clearTimeout(timer);
    next.close();
  }
}

export async function fuzzVfioUserServer(seed: number, iterations: number): Promise<void> {
  const random = generator(seed);
  const device = new RamDevice({ p2p: true });
  // Nobody answers the device's DMA here.
  await withServer(
    device,
    async (server) => {
      for (let round = 0; round < iterations; round++) {
        try {
          await fuzzOnce(server, device, random);
        } catch (error) {
          throw new Error(`seed ${seed}, round ${round}`, { cause: error });
        }
        server.events.length = 0;
      }
    },
    { dmaMs: 100 },
  );
}

if (process.argv[1]?.endsWith('vfio-user-server.fuzz.js')) {
  const seed = Number(process.argv[2] ?? Date.now() & 0x7fffffff);
  const iterations = Number(process.argv[3] ?? 5000);
  console.log(`seed ${seed}, ${iterations} rounds`);
  const startMs = performance.now();
  await fuzzVfioUserServer(seed, iterations);
  console.log(`no finding in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}
