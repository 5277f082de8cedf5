/** Servers that do not keep to vfio-user, between processes: whoever talks to one ends with a clear error in bounded time, and the device runs on. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { describe, type TestContext } from 'node:test';
import type { vfioUser } from '../../src/wire/index.ts';
import { type Twist, twistingRelay } from '../vfio/user/twisting-relay.ts';
import { stateOf } from './served-device.ts';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

/** The client's own deadlines are 5 s for a question and 60 s for a device that works; the rest is for a busy machine. */
const BOUND_MS = 45_000;
const VF = 'vf,state-size=2M,working-set=512K,state-rate=2M,dma-rate=1M,dma-size=1M';

interface Hostile {
  readonly title: string;
  readonly server: 'source' | 'destination';
  readonly at: number | vfioUser.CommandName;
  readonly twist: Twist;
  /** In the error that the operator gets. */
  readonly says: RegExp;
}

const cut =
  (keep: (bytes: Buffer) => number, after: 'close' | 'silence'): Twist =>
  (bytes) => ({ bytes: bytes.subarray(0, keep(bytes)), after });

const edit =
  (change: (bytes: Buffer) => void): Twist =>
  (bytes) => {
    change(bytes);
    return { bytes, after: 'go on' };
  };
const wrongId = edit((bytes) => bytes.writeUInt16LE(bytes.readUInt16LE(0) ^ 0x8000, 0));
const endless = edit((bytes) => bytes.writeUInt32LE(0xffff_ffff, 4));
const half = cut((bytes) => Math.floor(bytes.length / 2), 'close');
const silent = cut(() => 0, 'silence');

const WRONG_SIZE =
  /hostile: offset \d+: message \d+, command \d+: message size: at most \d+ accepted, found 4294967295/;
const WRONG_ID = /hostile: a reply to command \d+ with id \d+, which was not asked/;
const SILENT = /hostile: .* 5000 ms/;
const BROKEN_OFF = /hostile: offset \d+: message: the stream ends here, \d+ bytes were wanted and \d+ are there/;

const HOSTILES: readonly Hostile[] = [
  { title: 'a wrong size', server: 'source', at: 'MIG_DATA_READ', twist: endless, says: WRONG_SIZE },
  {
    title: 'a wrong size',
    server: 'destination',
    at: 'MIG_DATA_WRITE',
    twist: endless,
    says: WRONG_SIZE,
  },
  { title: 'a wrong id', server: 'source', at: 'MIG_DATA_READ', twist: wrongId, says: WRONG_ID },
  { title: 'a wrong id', server: 'destination', at: 'MIG_DATA_WRITE', twist: wrongId, says: WRONG_ID },
  { title: 'silence', server: 'source', at: 1, twist: silent, says: SILENT },
  { title: 'silence', server: 'destination', at: 1, twist: silent, says: SILENT },
  { title: 'an end in mid-message', server: 'source', at: 'MIG_DATA_READ', twist: half, says: BROKEN_OFF },
  {
    title: 'an end in mid-message',
    server: 'destination',
    at: 'MIG_DATA_WRITE',
    twist: half,
    says: BROKEN_OFF,
  },
];

interface Servers {
  readonly source: string;
  readonly destination: string;
  /** Past the one that is hostile. */
  readonly honestSource: string;
}

async function servers(t: TestContext, { server, at, twist }: Hostile): Promise<Servers> {
  const folder = await temporaryFolder(t);
  const start = async (name: string, device: string) => {
    const socket = join(folder, name);
    const spawned = new Spawned(t, ['device-server', '--socket', socket, '--device', device, '--json']);
    await spawned.line('ready');
    return socket;
  };
  const [honestSource, destination] = await Promise.all([start('a', VF), start('b', `${VF},seed=99`)]);
  const spoiled = join(folder, 'hostile');
  const relay = await twistingRelay(spoiled, server === 'source' ? honestSource : destination, at, twist);
  t.after(() => relay.close());
  if (server === 'source') return { source: spoiled, destination, honestSource };
  return { source: honestSource, destination: spoiled, honestSource };
}

// Side by side: they wait more than they work.
describe('device-move', { concurrency: 4 }, () => {
  for (const hostile of HOSTILES) {
    const { title, server, says } = hostile;
    test(`${title} from the ${server}`, async (t) => {
      const { source, destination, honestSource } = await servers(t, hostile);
      const startMs = performance.now();
      const { error } = await new Spawned(t, ['device-move', source, destination, '--json']).result(1);
      assert.ok(performance.now() - startMs < BOUND_MS, 'in bounded time');
      assert.match(String((error as { message: string }).message), says);
      // A server whose client is lost keeps the state that it was taken to; a destination that is lost leaves the source running.
      if (server === 'destination') assert.equal(await stateOf(honestSource), 'RUNNING');
    });
  }
});

/** In a migration, one at each end. */
const IN_MIGRATIONS = HOSTILES.filter(
  ({ title, server }) => title === (server === 'source' ? 'a wrong id' : 'an end in mid-message'),
);

for (const hostile of IN_MIGRATIONS) {
  const { title, server, says } = hostile;
  test(`a machine whose device gives ${title} at the ${server}: the migration fails, the guest runs on`, async (t) => {
    const { source, destination } = await servers(t, hostile);
    const folder = await temporaryFolder(t);
    const [a, b] = [join(folder, 'a.qmp'), join(folder, 'b.qmp')];
    const run = (qmp: string, socket: string, ...more: string[]) =>
      startRun(t, qmp, ...SMALL, '--device', `vfio-user,socket=${socket},dma-size=1M`, ...more);
    await Promise.all([run(a, source), run(b, destination, '--incoming', 'defer')]);
    await ask(a, 'migrate-set-parameters', { 'avail-switchover-bandwidth': 1_000_000_000 });
    const startMs = performance.now();
    const { error } = await new Spawned(t, ['migrate', a, b, '--json']).result(1);
    assert.ok(performance.now() - startMs < BOUND_MS, 'in bounded time');
    assert.match(String((error as { message: string }).message), says);
    assert.equal((await ask<{ status: string }>(a, 'query-status')).status, 'running');
  });
}
